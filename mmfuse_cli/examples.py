"""Examples at the end of every command's --help."""

EXAMPLES: dict[str, tuple[str, ...]] = {
    "": ("demo", "extract digits --encoder pixels,mfcc,hashing", "train --method concat,late"),
    "demo": ("demo", "demo --seeds 3 --epochs 10"),
    "extract": (
        "extract digits --encoder pixels,mfcc,hashing",
        "extract movies.csv --target genre --modality poster=image --encoder clip",
        "extract photos/ --encoder resnet --plan",
        "extract photos/ --encoder timm:resnet18 --weights model.safetensors",
    ),
    "train": (
        "train --method concat,late",
        "train digits --method clarga --drop-rate 0.3 --seeds 10",
        "train --method ./my_head.py --features pixels/image,hashing/text",
    ),
    "sweep": (
        "sweep --method concat --learning-rate 1e-3,3e-3 --drop-rate 0,0.3",
        "sweep digits --method clarga --set width=64,256 --trials 3",
    ),
    "eval": (
        "eval",
        "eval --missing all",
        "eval digits --missing text --missing-rate 0.1,0.3",
    ),
    "predict": (
        "predict --input new.csv --output predictions.csv",
        "predict --run 20261127-concat --input new.csv",
        "predict --sample image=photo.jpg --sample text='a red card'",
    ),
    "compare": ("compare", "compare --run 20261127-concat,20261127-late"),
    "report": ("report", "report --run 20261127-concat --output report.html"),
    "runs": (
        "runs digits --method concat,late --sort test",
        "runs --run 20261127-concat --tag paper --note 'with the new splits'",
        "runs --run 20261127-concat --delete",
    ),
    "check": ("check ./my_head.py", "check ./my_encoder.py"),
    "list": ("list", "list encoders"),
    "doctor": ("doctor",),
    "cache": ("cache verify", "cache pack digits.pack --dataset digits"),
    "cache verify": (
        "cache verify",
        "cache verify --repair",
        "cache verify --dataset digits --recompute 20 --encoder pixels",
    ),
    "cache gc": ("cache gc", "cache gc --yes"),
    "cache export": ("cache export digits.h5 --dataset digits",),
    "cache import": (
        "cache import digits.h5",
        "cache import vectors.npz --stream wavlm/audio --dataset movies.csv --kind audio",
    ),
    "cache pack": ("cache pack digits.pack --dataset digits --licence CC-BY-4.0",),
    "cache unpack": ("cache unpack digits.pack",),
    "data": ("data audit digits",),
    "data audit": ("data audit", "data audit digits --features pixels --texts"),
}


def epilog(command: str) -> str:
    """The text that stands at the end of a command's help, its lines as they are."""
    lines = "\n".join(f"  mmfuse {example}" for example in EXAMPLES[command])
    return f"\b\nExamples:\n{lines}"  # \b: the lines are not joined into a paragraph
