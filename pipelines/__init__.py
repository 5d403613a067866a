"""What happens: from rows to scores. Never prints."""
