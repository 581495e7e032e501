"""The page that reports a comparison of mechanisms."""
