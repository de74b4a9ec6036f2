"""What a result is worth, in numbers."""
