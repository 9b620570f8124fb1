"""The HTTP API: questions, labels and events by request, and what comes of them."""
