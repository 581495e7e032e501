"""The training objective: the denoising loss of each image."""

from __future__ import annotations

from typing import Any, Literal

import torch
from diffusers import DDPMScheduler

Prediction = Literal["v_prediction", "epsilon"]
STEPS = 1000


def noise_schedule(prediction: Prediction = "v_prediction") -> Any:
    """The noise schedule of training, as a diffusers scheduler: cosine (Nichol & Dhariwal 2021), 1000 steps."""
    return DDPMScheduler(
        num_train_timesteps=STEPS,
        beta_schedule="squaredcos_cap_v2",
        prediction_type=prediction,
        clip_sample=False,
    )


def loss_per_image(
    denoiser: Any,
    schedule: Any,
    latents: torch.Tensor,
    noise: torch.Tensor,
    timesteps: torch.Tensor,
    ids: torch.Tensor,
) -> torch.Tensor:
    """l_i = mean over channels and pixels of (f(z_t, t, c) - target)^2 (METHODS section 1).

    ``latents``, ``noise``: [B, C, h, w], latents of unit variance per channel; ``timesteps``: [B] int64 in
    [0, 1000); ``ids``: [B, F]. The target is the noise (epsilon) or the velocity (Salimans & Ho 2022), as the
    schedule says. Returns [B] float32.
    """
    noisy = schedule.add_noise(latents, noise, timesteps)
    velocity = schedule.config.prediction_type == "v_prediction"
    target = schedule.get_velocity(latents, noise, timesteps) if velocity else noise
    difference: torch.Tensor = denoiser(noisy, timesteps, ids).float() - target
    return difference.square().mean(dim=(1, 2, 3))


def min_snr_weights(schedule: Any, timesteps: torch.Tensor, gamma: float) -> torch.Tensor:
    """Min-SNR weights of noise levels: min(SNR, gamma) / SNR for epsilon, min(SNR, gamma) / (SNR + 1) for v.

    The Min-SNR-gamma strategy (Hang et al., ICCV 2023, arXiv 2303.09556): each noise level counts as in a loss on the
    clean latent that is weighted by min(SNR, gamma), so that the easy, almost clean levels do not rule.
    SNR = alpha_bar / (1 - alpha_bar). ``timesteps``: [B] int64 in [0, 1000); ``gamma`` > 0, 5 in the paper. Returns
    [B] float32 in [0, 1].
    """
    signal: torch.Tensor = schedule.alphas_cumprod.to(timesteps.device)[timesteps]
    snr = signal / (1 - signal)
    if schedule.config.prediction_type == "v_prediction":
        return snr.clamp(max=gamma) / (snr + 1)
    return (gamma / snr).clamp(max=1)  # without 0 / 0 where there is no signal
