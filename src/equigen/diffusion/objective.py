"""The training objective: the denoising loss of each image, for noise, velocity and flow prediction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler, SchedulerMixin

from equigen.diffusion.choices import Prediction
from equigen.errors import InputError, Problem

STEPS = 1000
DIFFUSION = {
    # what of a scheduler's config makes the noise levels that its network was trained with
    "num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "prediction_type",
    "rescale_betas_zero_snr",
}  # fmt: skip


class Objective(Protocol):
    """What a network is trained to tell: how a latent is made noisy, and what its answer is compared with.

    ``steps``: timesteps are int64 in [0, steps), and noise grows with them. ``prediction``: "epsilon",
    "v_prediction" or "flow".
    """

    steps: int
    prediction: str

    def noisy(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """z_t [B, C, h, w] of latents and noise of that shape, at timesteps [B]."""
        ...

    def target(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """What f(z_t, t, c) should be, [B, C, h, w]."""
        ...

    def time(self, timesteps: torch.Tensor) -> torch.Tensor:
        """What the network is told about the noise level, [B]."""
        ...

    def snr(self, timesteps: torch.Tensor) -> torch.Tensor:
        """Signal to noise ratio: (weight of the latent / weight of the noise)^2, [B] float32."""
        ...


class Diffusion:
    """Denoising diffusion: z_t = sqrt(a_t) z + sqrt(1 - a_t) noise (Ho et al. 2020), a_t the scheduler's alpha_bar.

    The target is the noise (epsilon), or the velocity sqrt(a_t) noise - sqrt(1 - a_t) z (Salimans & Ho 2022).
    ``schedule``: a DDPMScheduler, or what has its ``add_noise``, ``get_velocity`` and ``alphas_cumprod``.
    """

    def __init__(self, schedule: Any) -> None:
        self.schedule, self.steps = schedule, int(schedule.config.num_train_timesteps)
        self.prediction = str(schedule.config.prediction_type)
        signal = schedule.alphas_cumprod.cpu()  # the schedule moves its own along with the latents
        self._snr = {torch.device("cpu"): signal / (1 - signal)}

    def noisy(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """z_t [B, C, h, w]."""
        noisy: torch.Tensor = self.schedule.add_noise(latents, noise, timesteps)
        return noisy

    def target(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """The noise or the velocity, [B, C, h, w]."""
        if self.prediction == "epsilon":
            return noise
        velocity: torch.Tensor = self.schedule.get_velocity(latents, noise, timesteps)
        return velocity

    def time(self, timesteps: torch.Tensor) -> torch.Tensor:
        """The timestep itself."""
        return timesteps

    def snr(self, timesteps: torch.Tensor) -> torch.Tensor:
        """a_t / (1 - a_t), [B] float32."""
        return _table_values(self._snr, timesteps)


class Flow:
    """Rectified flow: z_t = (1 - sigma_t) z + sigma_t noise, target noise - z (Liu et al. 2023; Esser et al. 2024).

    ``sigmas`` [steps] float32 in (0, 1], rising. The network is told sigma_t * steps. SNR = ((1 - sigma) / sigma)^2.
    """

    prediction = "flow"

    def __init__(self, sigmas: torch.Tensor) -> None:
        self.steps = len(sigmas)
        self._sigmas = {torch.device("cpu"): sigmas.cpu()}

    def _sigma(self, timesteps: torch.Tensor) -> torch.Tensor:
        return _table_values(self._sigmas, timesteps)

    def noisy(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """z_t [B, C, h, w]."""
        sigma = self._sigma(timesteps)[:, None, None, None]
        return (1 - sigma) * latents + sigma * noise

    def target(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """The direction from the latent to the noise, [B, C, h, w]."""
        return noise - latents

    def time(self, timesteps: torch.Tensor) -> torch.Tensor:
        """sigma_t * steps, [B] float32."""
        return self._sigma(timesteps) * self.steps

    def snr(self, timesteps: torch.Tensor) -> torch.Tensor:
        """((1 - sigma) / sigma)^2, [B] float32."""
        sigma = self._sigma(timesteps)
        return ((1 - sigma) / sigma).square()


def _table_values(tables: dict[torch.device, torch.Tensor], timesteps: torch.Tensor) -> torch.Tensor:
    """Values of a table at timesteps; the table goes to a device once, since each copy would hold a GPU up."""
    if timesteps.device not in tables:
        tables[timesteps.device] = next(iter(tables.values())).to(timesteps.device)
    return tables[timesteps.device][timesteps]


def noise_schedule(prediction: Prediction = "v_prediction") -> Any:
    """The noise schedule of training, as a diffusers scheduler: cosine (Nichol & Dhariwal 2021), 1000 steps."""
    return DDPMScheduler(
        num_train_timesteps=STEPS,
        beta_schedule="squaredcos_cap_v2",
        prediction_type=prediction,
        clip_sample=False,
    )


def objective_of(scheduler: Any) -> Objective:
    """The objective that a network was trained with, read from the config of its scheduler, a diffusers one.

    Which solver it is plays no part: only the noise levels and what is predicted. Flow matching has the sigmas of
    FlowMatchEulerDiscreteScheduler, shifted by ``shift``; where the shift depends on the image size
    (``use_dynamic_shifting``) they are those before it, as usual in training. Raises InputError for a
    scheduler that is of another kind or predicts something else.
    """
    if isinstance(scheduler, DDPMScheduler):
        return _diffusion(scheduler)
    config: Mapping[str, Any] = scheduler.config
    if type(scheduler).__name__.startswith("FlowMatch"):
        return _flow(
            {name: config[name] for name in ("num_train_timesteps", "shift") if name in config}
            | ({"shift": 1.0} if config.get("use_dynamic_shifting") else {})
        )
    if config.get("prediction_type") == "flow_prediction" and config.get("use_flow_sigmas"):
        return _flow({"num_train_timesteps": config["num_train_timesteps"], "shift": config["flow_shift"]})
    if "beta_schedule" not in config:
        raise _unknown_scheduler(scheduler, f"{type(scheduler).__name__} has neither betas nor flow matching")
    try:
        return _diffusion(DDPMScheduler(**{key: config[key] for key in DIFFUSION if key in config}, clip_sample=False))
    except NotImplementedError as error:
        raise _unknown_scheduler(scheduler, f"beta_schedule {config['beta_schedule']!r} is not known") from error


def _flow(config: dict[str, Any]) -> Flow:
    return Flow(FlowMatchEulerDiscreteScheduler(**config).sigmas.flip(0))


def _diffusion(schedule: Any) -> Diffusion:
    if schedule.config.prediction_type not in {"epsilon", "v_prediction"}:
        raise _unknown_scheduler(schedule, f"prediction_type {schedule.config.prediction_type!r} cannot be trained")
    return Diffusion(schedule)


def _unknown_scheduler(scheduler: Any, message: str) -> InputError:
    mend = "use a model with epsilon, v or flow prediction"
    return InputError("No training objective is known for this scheduler.", [Problem(message, mend)])


def _objective(source: Any) -> Objective:
    objective: Objective = objective_of(source) if isinstance(source, SchedulerMixin) else source
    return objective


def loss_per_image(
    denoiser: Any,
    objective: Any,
    latents: torch.Tensor,
    noise: torch.Tensor,
    timesteps: torch.Tensor,
    ids: torch.Tensor,
    input_noise: torch.Tensor | None = None,
) -> torch.Tensor:
    """l_i = mean over channels and pixels of (f(z_t, t, c) - target)^2 (METHODS section 1).

    ``objective``: an Objective, or a diffusers scheduler that has one. ``latents``, ``noise``: [B, C, h, w], latents of
    unit variance per channel; ``timesteps``: [B] int64 in [0, steps); ``ids``: [B, F]. ``input_noise``: the noise in
    z_t where it is another than the target's (input perturbation). Returns [B] float32.
    """
    target_objective = _objective(objective)
    noisy = target_objective.noisy(latents, noise if input_noise is None else input_noise, timesteps)
    target = target_objective.target(latents, noise, timesteps)
    difference: torch.Tensor = denoiser(noisy, target_objective.time(timesteps), ids).float() - target
    return difference.square().mean(dim=(1, 2, 3))


def min_snr_weights(objective: Any, timesteps: torch.Tensor, gamma: float) -> torch.Tensor:
    """Min-SNR weights of noise levels: each counts as in a loss on the clean latent weighted by min(SNR, gamma).

    The Min-SNR-gamma strategy (Hang et al., ICCV 2023, arXiv 2303.09556), so that the easy, almost clean levels do not
    rule. An error of the prediction is one of the clean latent z times a factor, whose square divides min(SNR, gamma):

        epsilon  z = (z_t - sqrt(1 - a) noise) / sqrt(a)         min(SNR, gamma) / SNR
        v        z = sqrt(a) z_t - sqrt(1 - a) v                 min(SNR, gamma) / (SNR + 1)
        flow     z = z_t - sigma u, sigma = 1 / (1 + sqrt(SNR))  min(SNR, gamma) / (1 + sqrt(SNR))^2

    The first two are the paper's; the third is the same for the rectified flow of Esser et al. (2024).
    ``objective``: an Objective, or a diffusers scheduler that has one; ``timesteps``: [B] int64 in [0, steps);
    ``gamma`` > 0, 5 in the paper. Returns [B] float32 in [0, 1].
    """
    target_objective = _objective(objective)
    snr = target_objective.snr(timesteps)
    if target_objective.prediction == "v_prediction":
        return snr.clamp(max=gamma) / (snr + 1)
    if target_objective.prediction == "flow":
        return snr.clamp(max=gamma) / (1 + snr.sqrt()).square()
    return (gamma / snr).clamp(max=1)  # without 0 / 0 where there is no signal
