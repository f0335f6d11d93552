"""What a user types and sees: words of the command line, help, lines and progress, errors."""
