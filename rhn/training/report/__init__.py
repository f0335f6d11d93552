"""What one looks at after a run: its page, and runs compared."""
