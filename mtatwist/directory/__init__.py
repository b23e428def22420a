"""The LDAP directory: searches and binds in bounded threads, over several servers."""
