"""The page of counterfactual pairs."""
