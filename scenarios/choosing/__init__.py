"""Learning to choose: courses of streams, and how a policy is judged on them."""
