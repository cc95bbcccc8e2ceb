"""Who may use the server: accounts, log-in with lock-out, and the sessions of those logged in."""
