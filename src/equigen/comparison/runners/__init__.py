"""Runners of ordered jobs: processes of this machine, Ray or submitit."""
