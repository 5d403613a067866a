"""Tiny randomly initialised checkpoints, saved in their real formats on disk."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def trained(model: Any, seed: int) -> Any:
    """Move every parameter a little, as training would: no normalisation stays at 1 and 0."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for values in model.parameters():
            values.add_(0.02 * torch.randn(values.shape, generator=generator))
    return model.eval()


def make_clip(place: Path, *, seed: int = 0, **preprocess: Any) -> None:
    """open_clip's hub folder with a model of two layers."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    config = {
        "embed_dim": 32,
        "quick_gelu": True,
        "vision_cfg": {
            "image_size": 32, "layers": 2, "width": 64, "patch_size": 8, "head_width": 32,
        },
        "text_cfg": {
            "context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2,
        },
    }  # fmt: skip
    torch.manual_seed(seed)
    model = trained(open_clip.CLIP(**config), seed)
    own = {"mean": [0.48, 0.46, 0.41], "std": [0.27, 0.26, 0.28], "interpolation": "bicubic"}
    whole = {"model_cfg": config, "preprocess_cfg": {**own, **preprocess}}
    place.mkdir(parents=True)
    (place / "open_clip_config.json").write_text(json.dumps(whole))
    tensors = {name: values.contiguous() for name, values in model.state_dict().items()}
    save_file(tensors, place / "open_clip_model.safetensors")


_SMALL = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48,
}  # fmt: skip


def _saved(place: Path, kind: str, config: Any, seed: int = 0, **how: Any) -> None:
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(seed)
    trained(getattr(transformers, kind)(config), seed).save_pretrained(place, **how)


def _byte_pairs(place: Path) -> None:
    """A byte-level BPE vocabulary as RoBERTa has it, learnt from a few words."""
    from tokenizers import ByteLevelBPETokenizer
    from tokenizers.processors import RobertaProcessing
    from transformers import PreTrainedTokenizerFast

    learner = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    words = ["the quick fox JUMPED over def lazy(dog): return 42"] * 4
    learner.train_from_iterator(words, vocab_size=330, min_frequency=2, special_tokens=special)
    learner._tokenizer.post_processor = RobertaProcessing(("</s>", 2), ("<s>", 0))
    names = dict(zip(("bos", "pad", "eos", "unk", "mask"), special, strict=True))
    PreTrainedTokenizerFast(
        tokenizer_object=learner._tokenizer,
        model_max_length=64,
        **{f"{name}_token": word for name, word in names.items()},
    ).save_pretrained(place)


def make_roberta(place: Path, *, seed: int = 0, **how: Any) -> None:
    """RoBERTa with 64 positions and a vocabulary of byte pairs."""
    from transformers import RobertaConfig

    _byte_pairs(place)
    config = RobertaConfig(
        vocab_size=330, max_position_embeddings=66, type_vocab_size=1, pad_token_id=1, **_SMALL
    )
    _saved(place, "RobertaModel", config, seed, **how)


def make_bert(place: Path, *, seed: int = 0) -> None:
    """BERT with a vocabulary of word pieces."""
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertConfig, PreTrainedTokenizerFast

    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "quick", "fox", "jumped", "##s"]
    letters = [*"abcdefghijklmnopqrstuvwxyz0123456789(),:"]
    pieces += [*letters, *(f"##{letter}" for letter in letters)]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    names = {f"{word[1:-1].lower()}_token": word for word in pieces[:5]}
    PreTrainedTokenizerFast(
        tokenizer_object=BertWordPieceTokenizer(vocabulary)._tokenizer, **names
    ).save_pretrained(place)
    config = BertConfig(vocab_size=len(pieces), max_position_embeddings=64, **_SMALL)
    _saved(place, "BertModel", config, seed)


def make_wav2vec(place: Path, *, norm: str = "layer", seed: int = 0) -> None:
    """wav2vec 2.0 with either normalisation of its convolutions."""
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor

    config = Wav2Vec2Config(
        **_SMALL,
        feat_extract_norm=norm,
        do_stable_layer_norm=norm == "layer",
        conv_dim=(16, 16, 16),
        conv_kernel=(10, 8, 4),
        conv_stride=(5, 8, 4),
        conv_bias=norm == "layer",
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        vocab_size=12,
    )
    _saved(place, "Wav2Vec2Model", config, seed)
    Wav2Vec2FeatureExtractor(
        sampling_rate=16000, do_normalize=True, return_attention_mask=norm == "layer"
    ).save_pretrained(place)


def make_whisper(place: Path) -> None:
    """Whisper with a window of two seconds."""
    from transformers import WhisperConfig, WhisperFeatureExtractor

    config = WhisperConfig(
        d_model=32, encoder_layers=2, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=48, decoder_ffn_dim=48, vocab_size=64,
        num_mel_bins=20, max_source_positions=100, max_target_positions=16,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    _saved(place, "WhisperModel", config)
    WhisperFeatureExtractor(feature_size=20, chunk_length=2).save_pretrained(place)


def _looks(place: Path, kind: str, **options: Any) -> None:
    import transformers

    getattr(transformers, kind)(**options).save_pretrained(place)


def make_vit(place: Path) -> None:
    """ViT of 32 pixels a side."""
    from transformers import ViTConfig

    _saved(place, "ViTModel", ViTConfig(image_size=32, patch_size=8, **_SMALL))
    _looks(place, "ViTImageProcessor", size={"height": 32, "width": 32})


def make_dino(place: Path) -> None:
    """DINOv2, whose images are cut."""
    from transformers import Dinov2Config

    _saved(place, "Dinov2Model", Dinov2Config(image_size=28, patch_size=14, **_SMALL))
    size, crop = {"shortest_edge": 32}, {"height": 28, "width": 28}
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    _looks(place, "BitImageProcessor", size=size, crop_size=crop, image_mean=mean, image_std=std)


def make_siglip(place: Path) -> None:
    """SigLIP: text and vision encoders, the latter with its own attention pool."""
    from transformers import SiglipConfig

    ends = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    text = {**_SMALL, "vocab_size": 330, "max_position_embeddings": 64, **ends}
    vision = {**_SMALL, "image_size": 32, "patch_size": 8}
    _byte_pairs(place)
    _saved(place, "SiglipModel", SiglipConfig(text_config=text, vision_config=vision))
    _looks(place, "SiglipImageProcessor", size={"height": 32, "width": 32})


def make_convnext(place: Path) -> None:
    """A convolutional model, whose states are a feature map."""
    from transformers import ConvNextConfig

    config = ConvNextConfig(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1])
    _saved(place, "ConvNextModel", config)
    _looks(place, "ConvNextImageProcessor", size={"shortest_edge": 64})


def make_sentence(place: Path, *, inner: str = "", dense: bool = False) -> None:
    """sentence-transformers' folder around a BERT, with or without a dense layer."""
    import torch
    from safetensors.torch import save_file

    make_bert(place / inner)
    parts = [("Transformer", inner), ("Pooling", "1_Pooling")]
    parts += [("Dense", "2_Dense")] if dense else []
    parts += [("Normalize", "3_Normalize")]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(parts)
    ]
    (place / "modules.json").write_text(json.dumps(modules))
    limits = {"max_seq_length": 24, "do_lower_case": False}
    (place / inner / "sentence_bert_config.json").write_text(json.dumps(limits))
    pooling = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}
    pooling |= {"pooling_mode_cls_token": dense, "pooling_mode_max_tokens": False}
    (place / "1_Pooling").mkdir()
    (place / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    prompts = {"prompts": {"query": "find: "}, "default_prompt_name": "query" if dense else None}
    (place / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    if dense:
        (place / "2_Dense").mkdir()
        stated = {"in_features": 64, "out_features": 20, "bias": True}
        stated["activation_function"] = "torch.nn.modules.activation.Tanh"
        (place / "2_Dense" / "config.json").write_text(json.dumps(stated))
        random = torch.Generator().manual_seed(3)
        shapes = {"linear.weight": (20, 64), "linear.bias": (20,)}
        tensors = {n: 0.2 * torch.randn(shape, generator=random) for n, shape in shapes.items()}
        save_file(tensors, place / "2_Dense" / "model.safetensors")


def make_timm(place: Path, architecture: str = "resnet18", **options: Any) -> None:
    """Timm's hub folder."""
    import timm
    import torch
    from timm.models import save_for_hf

    config = options.pop("config", {})
    torch.manual_seed(0)
    model = trained(timm.create_model(architecture, pretrained=False, **options), 0)
    own = {"input_size": (3, 64, 64), "crop_pct": 0.9, **config}
    save_for_hf(model, str(place), model_config={"pretrained_cfg": own}, safe_serialization=True)


MAKERS: dict[str, Callable[[Path], None]] = {
    "clip": make_clip,
    "clip2": lambda place: make_clip(place, seed=1),
    "clipsquash": lambda place: make_clip(place, resize_mode="squash", interpolation="bilinear"),
    "cliplongest": lambda place: make_clip(place, resize_mode="longest"),
    "roberta": make_roberta,
    "roberta2": lambda place: make_roberta(place, seed=1),
    "sharded": lambda place: make_roberta(place, max_shard_size="20KB"),
    "bert": make_bert,
    "wav2vec": make_wav2vec,
    "wav2vecgroup": lambda place: make_wav2vec(place, norm="group"),
    "whisper": make_whisper,
    "vit": make_vit,
    "dino": make_dino,
    "siglip": make_siglip,
    "convnext": make_convnext,
    "sentence": make_sentence,
    "sentencedense": lambda place: make_sentence(place, inner="0_Transformer", dense=True),
    "resnet": make_timm,
    "timmsquash": lambda place: make_timm(
        place, "convnext_atto", depths=(1, 1, 1, 1), dims=(8, 8, 16, 16),
        config={"crop_mode": "squash", "crop_pct": 1.0},
    ),
    "timmborder": lambda place: make_timm(
        place, "vit_tiny_patch16_224", img_size=64, depth=2, embed_dim=48,
        config={"crop_mode": "border", "interpolation": "bilinear"},
    ),
    "timmhead": lambda place: make_timm(place, "mobilenetv3_small_050"),
}  # fmt: skip
