"""Small pipelines of diffusers' real classes with random weights, written as plain folders.

Images are 32 x 32 pixels unless a test asks otherwise: the autoencoders shrink by 4, the networks see 8 x 8 latents.
Each function writes a folder that plain ``from_pretrained`` opens, and returns its path. The same call writes the
same weights.
"""

import contextlib
import warnings
from pathlib import Path

import diffusers
import torch
import transformers

from equigen.progress import silence_library

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,:;-_/()[]{}'\"!?+=<>&%#@*|"
SIZE, FACTOR, WIDTH, WIDE = 32, 4, 32, 96


def clip_tokenizer():
    """CLIP's tokenizer over single letters: a prompt of n letters has n tokens, and two more."""
    pieces = [*LETTERS, *(letter + "</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]
    vocab = {piece: number for number, piece in enumerate(pieces)}
    return transformers.CLIPTokenizer(vocab=vocab, merges=[], model_max_length=77)


def t5_tokenizer():
    """T5's tokenizer over single letters."""
    specials = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    vocab = [*specials, *((letter, -3.0) for letter in LETTERS)]
    return transformers.T5Tokenizer(vocab=vocab, extra_ids=0, model_max_length=120)


def clip_encoder(seed, projection=False, act="quick_gelu", layers=3):
    """A CLIP text encoder of width 32 for ``clip_tokenizer``."""
    tokenizer = clip_tokenizer()
    kind = transformers.CLIPTextModelWithProjection if projection else transformers.CLIPTextModel
    config = transformers.CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=WIDTH, intermediate_size=64, num_hidden_layers=layers,
        num_attention_heads=2, max_position_embeddings=77, projection_dim=WIDTH, hidden_act=act,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id, initializer_factor=4.0,
    )  # fmt: skip
    with seeded(seed):
        return kind(config).eval()


def t5_encoder(seed, width=WIDTH):
    """A T5 encoder for ``t5_tokenizer``."""
    config = transformers.T5Config(
        vocab_size=len(t5_tokenizer()), d_model=width, d_kv=16, d_ff=64, num_layers=2, num_heads=2,
        feed_forward_proj="gated-gelu", pad_token_id=0, eos_token_id=1, decoder_start_token_id=0,
    )  # fmt: skip
    with seeded(seed):
        return transformers.T5EncoderModel(config).eval()


def autoencoder(seed, channels=4, **settings):
    """An AutoencoderKL that shrinks by 4."""
    with seeded(seed):
        return diffusers.AutoencoderKL(
            block_out_channels=(8, 8, 16), layers_per_block=1, latent_channels=channels, norm_num_groups=4,
            down_block_types=["DownEncoderBlock2D"] * 3, up_block_types=["UpDecoderBlock2D"] * 3,
            sample_size=SIZE, **settings,
        ).eval()  # fmt: skip


def unet(seed, width=WIDTH, **settings):
    """A UNet2DConditionModel for latents [4, 8, 8]."""
    common = {
        "sample_size": SIZE // FACTOR, "block_out_channels": (16, 32), "layers_per_block": 1, "norm_num_groups": 8,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "cross_attention_dim": width,
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"), "attention_head_dim": 2,
    }  # fmt: skip
    with seeded(seed):
        return diffusers.UNet2DConditionModel(**{**common, **settings}).eval()


def tiny_sd(folder, prediction="epsilon", seed=0):
    """Stable Diffusion 1.x, or with ``prediction="v_prediction"`` one made as 2.x is."""
    second = prediction == "v_prediction"
    schedule = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
    if second:
        scheduler = diffusers.DDIMScheduler(
            **schedule, prediction_type=prediction, clip_sample=False, set_alpha_to_one=False
        )
    else:
        scheduler = diffusers.PNDMScheduler(**schedule, skip_prk_steps=True, prediction_type=prediction)
    network = unet(seed + 1, use_linear_projection=True, attention_head_dim=(2, 4)) if second else unet(seed + 1)
    pipeline = diffusers.StableDiffusionPipeline(
        vae=autoencoder(seed + 2, scaling_factor=0.18215),
        text_encoder=clip_encoder(seed + 3, act="gelu" if second else "quick_gelu"),
        tokenizer=clip_tokenizer(), unet=network, scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    return _saved(pipeline, folder)


def tiny_sdxl(folder, seed=0, **autoencoder_settings):
    """Stable Diffusion XL: two encoders, pooled text and image sizes."""
    network = unet(
        seed + 1, 2 * WIDTH, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), attention_head_dim=(2, 4), use_linear_projection=True,
        addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + WIDTH,
    )  # fmt: skip
    scheduler = diffusers.EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1,
        timestep_spacing="leading", prediction_type="epsilon",
    )  # fmt: skip
    pipeline = diffusers.StableDiffusionXLPipeline(
        vae=autoencoder(seed + 2, scaling_factor=0.13025, **autoencoder_settings),
        text_encoder=clip_encoder(seed + 3), text_encoder_2=clip_encoder(seed + 4, projection=True, act="gelu"),
        tokenizer=clip_tokenizer(), tokenizer_2=clip_tokenizer(), unet=network, scheduler=scheduler,
        add_watermarker=False,
    )  # fmt: skip
    return _saved(pipeline, folder)


def tiny_sd3(folder, seed=0, t5=False):
    """Stable Diffusion 3: a transformer and flow matching; without its third encoder unless ``t5``."""
    with seeded(seed + 1):
        network = diffusers.SD3Transformer2DModel(
            sample_size=SIZE // FACTOR, patch_size=2, in_channels=4, out_channels=4, num_layers=2,
            attention_head_dim=8, num_attention_heads=4, joint_attention_dim=WIDE,
            caption_projection_dim=32, pooled_projection_dim=2 * WIDTH, pos_embed_max_size=16,
        ).eval()  # fmt: skip
    pipeline = diffusers.StableDiffusion3Pipeline(
        transformer=network, scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=autoencoder(
            seed + 2, scaling_factor=1.5305, shift_factor=0.0609, use_quant_conv=False, use_post_quant_conv=False
        ),
        text_encoder=clip_encoder(seed + 3, projection=True), tokenizer=clip_tokenizer(),
        text_encoder_2=clip_encoder(seed + 4, projection=True, act="gelu"), tokenizer_2=clip_tokenizer(),
        text_encoder_3=t5_encoder(seed + 5, WIDE) if t5 else None, tokenizer_3=t5_tokenizer() if t5 else None,
    )  # fmt: skip
    return _saved(pipeline, folder)


def tiny_pixart(folder, seed=0, sigma=False, **settings):
    """PixArt-alpha (or -sigma): a transformer with learned variances, T5, and epsilon."""
    common = {
        "num_attention_heads": 4, "attention_head_dim": 8, "in_channels": 4, "out_channels": 8, "num_layers": 2,
        "cross_attention_dim": 32, "sample_size": SIZE // FACTOR, "patch_size": 2, "caption_channels": WIDTH,
    }  # fmt: skip
    with seeded(seed + 1):
        network = diffusers.PixArtTransformer2DModel(**{**common, **settings}).eval()
    kind = diffusers.PixArtSigmaPipeline if sigma else diffusers.PixArtAlphaPipeline
    pipeline = kind(
        tokenizer=t5_tokenizer(), text_encoder=t5_encoder(seed + 3),
        vae=autoencoder(seed + 2, scaling_factor=0.18215), transformer=network,
        scheduler=diffusers.DPMSolverMultistepScheduler(beta_start=0.0001, beta_end=0.02, beta_schedule="linear"),
    )  # fmt: skip
    return _saved(pipeline, folder)


@contextlib.contextmanager
def seeded(seed):
    """Global random numbers from a seed inside, as they were before outside."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@contextlib.contextmanager
def old_habits():
    """diffusers' solvers ask NumPy 2 for arrays in a way that it deprecates; nothing else is silenced."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="__array__ implementation", category=DeprecationWarning)
        yield


def _saved(pipeline, folder):
    with silence_library(diffusers.utils.logging), silence_library(transformers.utils.logging):
        pipeline.save_pretrained(str(folder), safe_serialization=True)
    return Path(folder)
