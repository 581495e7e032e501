"""The page that reports counterfactual pairs."""
