"""Who gets mail at our domains: the known users, aliases and groups, from files and from the directory."""
