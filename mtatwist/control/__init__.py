"""Administration of the server: the mtactl command, and later the control socket it talks to."""
