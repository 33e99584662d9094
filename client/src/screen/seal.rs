//! The fields that tell what was found out about a mail, and seal that (RFC 8601, RFC 8617).

use lightpost_intake::{
    StoredBody,
    signed::{self, BodyHash},
};
use mail_auth::{ArcOutput, AuthenticationResults, common::headers::HeaderWriter};

use super::{LATER, Mail};
use crate::{accept::Refusal, config::Seal};

/// A mail as it leaves, but for the fields that are added here.
pub(super) struct Sealable<'a> {
    /// Its header section.
    pub(super) headers: &'a [u8],
    /// The header section that is stored in front of its body.
    pub(super) stored: &'a [u8],
    pub(super) body: &'a StoredBody,
    /// The hash of what is behind the header section, where it is known.
    pub(super) hash: Option<&'a BodyHash>,
}

impl Sealable<'_> {
    /// The results and, with a key, the seal over them, each with its CRLF.
    ///
    /// # Errors
    /// It cannot be sealed, for now.
    pub(super) async fn fields(
        &self,
        results: &AuthenticationResults<'_>,
        seal: Option<&Seal>,
        mail: &Mail<'_>,
    ) -> Result<String, Refusal> {
        let told = results.to_header();
        let Some(seal) = seal else {
            return Ok(told);
        };
        let message = signed::sealable(self.headers, self.stored, self.body, self.hash).await?;
        let sealed = message
            .as_ref()
            .ok_or(mail_auth::Error::NoHeadersFound)
            .and_then(|message| seal.sealer.seal(message, results, &ArcOutput::default()));
        match sealed {
            Ok(set) => Ok(format!("{}{told}", set.to_header())),
            Err(error) => {
                tracing::error!(%error, id = %mail.draft.id, "the results cannot be sealed");
                let text = "the mail cannot be sealed now; try again later";
                Err(Refusal::new(451, LATER, text))
            }
        }
    }
}
