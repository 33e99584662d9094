"""Tells schemathesis how the two media types of mail are sent: as the octets that they are."""

import schemathesis


def octets(context, value):
    if isinstance(value, bytes):
        return value
    return str(value).encode("utf-8", "surrogatepass")


@schemathesis.serializer("message/rfc822", "application/batch-SMTP", "application/batch-smtp")
def mail(context, value):
    # The wrapper that generated binary values come in has the octets in `data`.
    return octets(context, getattr(value, "data", value))
