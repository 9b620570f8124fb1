"""Many streams in one, told apart by ``Event.key``: they share structure and drift on their own."""
