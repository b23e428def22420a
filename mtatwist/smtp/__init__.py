"""Pure SMTP wire logic: standard library only, no reactor, no I/O."""
