//! What ingestion on Earth and the gateway have in common: problem documents, request fields, spooling, operator routes.
