"""SMTP receive: twisted.mail's ESMTP, hardened, handing streams to the spool."""
