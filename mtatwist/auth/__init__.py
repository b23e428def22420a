"""Who may log in: mechanisms, checkers of passwords, and the lockout before them."""
