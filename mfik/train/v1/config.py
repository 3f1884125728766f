"""Configuration of a training run."""

from __future__ import annotations

import inspect
import math
import re
from dataclasses import asdict, dataclass, fields
from typing import Any

from mfik.errors import ArgumentError

SCHEDULERS = ("cosine", "linear")
LOSS_TYPES = ("meanflow", "regression", "residual")
BEST_BY = ("loss", "success")
WEIGHT_TYPES = ("adaptive", "uniform", "error")
TANGENTS = ("conditional", "predicted")


@dataclass
class TrainConfig:
    """Settings of a training run; every field is a flag of `scripts/train.py`.

    Attributes:
        robot: What `load_robot` takes: a preset, a file, or a name of robot_descriptions.
        learning_rate: AdamW's base learning rate.
        weight_decay: AdamW's decoupled weight decay.
        betas: AdamW's running-average coefficients.
        warmup_steps: Steps of linear warm-up from 0 to `learning_rate`.
        scheduler_type: "cosine" or "linear" decay from `learning_rate` to `min_lr` over the steps that remain.
        min_lr: Learning rate at the last step.
        batch_size: Rows a step.
        num_epochs: Passes over the data.
        max_steps: Ends the run (and its schedule) earlier; 0 means `num_epochs` decides.
        gradient_clip: Largest gradient norm; 0 turns clipping off.
        use_amp: Automatic mixed precision on CUDA (bf16, or fp16 with loss scaling where bf16 is missing); the CPU
            trains in float32.
        compile: On CUDA, compile the network with `torch.compile`, which fuses what lies between the matrix products.
        loss_type: "meanflow"; "regression", the same without D, whose rows cost a quarter and whose network answers
            with the mean of what it was shown, until reflow shows it one answer; or "residual", the degenerate literal
            formula kept for ablation (docs/explanation/concepts.md).
        loss_weight_type: "adaptive" 1/(||q_target - q||^2 + c)^p, "uniform" 1, or "error", the adaptive form on the
            squared residual of the loss itself (Geng et al. 2025, "Mean Flows for One-step Generative Modeling").
        adaptive_weight_c: c of the weight.
        adaptive_weight_p: p of the weight.
        flow_matching_ratio: Share of the rows with t = r (plain flow matching, no JVP).
        endpoint_ratio: Share of the other rows at (r, t) = (0, 1), the point that inference uses.
        fk_loss_weight: Weight of the forward-kinematics error of the one-step solution, on the (0, 1) rows.
        limit_loss_weight: Weight of the squared distance [rad^2 or m^2] of the one-step solution from the joint limits,
            on the same rows.
        jvp_tangent: Velocity along which the JVP differentiates: "conditional", the row's own v, or "predicted", the
            network's u(q, r, r) (improved mean flows, Geng et al. 2025), at the price of one more forward pass.
        jvp_clip: Largest norm of the correction (t - r) D in units of the row's ||v||; 0 turns clipping off.
        curriculum_steps: Steps over which intervals grow from short to whole and references from near to far; 0 starts
            with whole ones.
        reflow_start: Step from which rows are coupled anew: the target becomes the solution that refinement reaches
            from the averaged network's own one-step answer to the row's start, where it reaches one (reflow, Liu et al.
            2022, "Flow Straight and Fast", with its samples put onto the solutions); 0 turns it off.
        collision_free: Train towards solutions free of self-collision alone, on the CPU: online rows have no others,
            and reflow leads to no others. A file's rows stay as they are.
        reference_noise: On-the-fly augmentation: N(0, s^2) noise on each row's reference, s in [rad] (or [m]).
        hard_ratio: Online hard-example mining: share of a batch's rows, those of the largest loss, that are trained on.
        ema_decay: Decay of the averaged weights that are validated and exported.
        val_fraction: Share of the file's rows (its last ones) held out for validation, at most 10,000 rows.
        log_interval: Steps between TensorBoard records; by the clock, that share of `max_steps` in time.
        save_interval: Steps between `checkpoint_step_{n}.pth` files; 0 writes none.
        keep_checkpoints: How many `checkpoint_*` files stay, the newest, beside those of every tenth epoch (of more
            than 100 epochs about ten round ones); 0 keeps all.
        best_by: What makes `best_model.pth` the best: the lowest validation "loss", or the highest "success", the rate
            of one attempt (`val/solved_10`); under reflow the loss rises while the network gets better.
        patience: Early stopping: epochs without a better network, by `best_by`, after which the run ends; 0 turns it
            off.
        max_bad_steps: Steps with a non-finite loss or gradient that are skipped before the run stops.
        seed: Seed of initialisation, shuffling and time draws.
        deterministic: Let torch take deterministic algorithms alone, or fail; slower on CUDA, where runs otherwise do
            not repeat themselves to the bit, and already so on a CPU.
        wandb: Log to Weights & Biases as well (extra `wandb`); WANDB_PROJECT, WANDB_MODE and its other variables apply.
        device: Torch device; "auto" is CUDA where available, else the CPU.
    """

    robot: str = "panda"
    learning_rate: float = 1e-4
    weight_decay: float = 1e-5
    betas: tuple[float, float] = (0.9, 0.999)
    warmup_steps: int = 1000
    scheduler_type: str = "cosine"
    min_lr: float = 1e-6
    batch_size: int = 256
    num_epochs: int = 100
    max_steps: int = 0
    gradient_clip: float = 1.0
    use_amp: bool = True
    compile: bool = True
    loss_type: str = "meanflow"
    loss_weight_type: str = "adaptive"
    adaptive_weight_c: float = 1e-4
    adaptive_weight_p: float = 0.5
    flow_matching_ratio: float = 0.75
    endpoint_ratio: float = 0.8
    fk_loss_weight: float = 1.0
    limit_loss_weight: float = 0.0
    jvp_tangent: str = "conditional"
    jvp_clip: float = 0.0
    curriculum_steps: int = 0
    reflow_start: int = 0
    collision_free: bool = False
    reference_noise: float = 0.0
    hard_ratio: float = 1.0
    ema_decay: float = 0.999
    val_fraction: float = 0.01
    log_interval: int = 50
    save_interval: int = 10_000
    keep_checkpoints: int = 5
    best_by: str = "loss"
    patience: int = 0
    max_bad_steps: int = 10
    seed: int = 0
    deterministic: bool = False
    wandb: bool = False
    device: str = "auto"

    @classmethod
    def panda_default(cls) -> TrainConfig:
        """Panda (7 joints)."""
        return cls(robot="panda")

    @classmethod
    def ur10_default(cls) -> TrainConfig:
        """UR10 (6 joints)."""
        return cls(robot="ur10")

    @classmethod
    def quick_test(cls) -> TrainConfig:
        """A run of seconds that touches every part of the trainer."""
        return cls(
            learning_rate=2e-3, warmup_steps=20, num_epochs=5, loss_weight_type="error", ema_decay=0.98, log_interval=10
        )  # fmt: skip

    @classmethod
    def field_help(cls) -> dict[str, str]:
        """Return what the docstring above says of each field."""
        sentences = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", inspect.getdoc(cls) or "", re.M)
        return {name: " ".join(text.split()) for name, text in sentences}

    def validate(self) -> None:
        """Raise ArgumentError for the first field that is out of range."""
        positive = ("learning_rate", "batch_size", "num_epochs", "adaptive_weight_c", "log_interval", "hard_ratio")
        not_negative = (
            "weight_decay", "warmup_steps", "min_lr", "max_steps", "gradient_clip", "adaptive_weight_p",
            "fk_loss_weight", "save_interval", "keep_checkpoints", "patience", "max_bad_steps",
            "jvp_clip", "curriculum_steps", "reflow_start", "reference_noise", "limit_loss_weight",
        )  # fmt: skip
        share = ("flow_matching_ratio", "endpoint_ratio", "hard_ratio")
        for name in (*positive, *not_negative, *share, "ema_decay", "val_fraction"):
            value = getattr(self, name)
            if not (isinstance(value, (int, float)) and math.isfinite(value)):
                raise ArgumentError(f"TrainConfig.{name}: expected a finite number, got {value!r}")
        for name in positive:
            if getattr(self, name) <= 0:
                raise ArgumentError(f"TrainConfig.{name}: expected a positive number, got {getattr(self, name)}")
        for name in not_negative:
            if getattr(self, name) < 0:
                raise ArgumentError(f"TrainConfig.{name}: expected 0 or more, got {getattr(self, name)}")
        for name in share:
            if not 0 <= getattr(self, name) <= 1:
                raise ArgumentError(f"TrainConfig.{name}: expected a share in [0, 1], got {getattr(self, name)}")
        for name in ("ema_decay", "val_fraction"):
            if not 0 <= getattr(self, name) < 1:
                raise ArgumentError(f"TrainConfig.{name}: expected a number in [0, 1), got {getattr(self, name)}")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ArgumentError(f"TrainConfig.betas: expected two numbers in [0, 1), got {self.betas!r}")
        choices = {
            "scheduler_type": SCHEDULERS,
            "loss_type": LOSS_TYPES,
            "loss_weight_type": WEIGHT_TYPES,
            "jvp_tangent": TANGENTS,
            "best_by": BEST_BY,
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ArgumentError(f"TrainConfig.{name}: expected one of {allowed}, got {getattr(self, name)!r}")

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain types."""
        return {**asdict(self), "betas": list(self.betas)}

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> TrainConfig:
        """Read `to_dict`'s document; unknown fields raise ArgumentError."""
        unknown = sorted(set(document) - {f.name for f in fields(cls)})
        if unknown:
            raise ArgumentError(f"training configuration: unknown fields {unknown}; it was written by another version")
        return cls(**{**document, "betas": tuple(document["betas"])})
