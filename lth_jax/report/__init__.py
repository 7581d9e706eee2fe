"""What people look at: tables, figures and the terminal of a running experiment."""
