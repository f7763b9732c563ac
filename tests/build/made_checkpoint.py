"""Tiny random checkpoints as `transformers` writes them, each with a vocabulary trained on the spot.

`checkpoint(family, folder)` makes one of: gpt2 (a table of exactly its tokens, <|endoftext|> among them), llama (its
tokenizer begins every text with <|begin_of_text|>), qwen3 (bfloat16, a padded table, ChatML's tokens and template).
"""

import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import torch  # noqa: E402  # transformers asks the hub unless the line above comes first
import transformers  # noqa: E402
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers  # noqa: E402

TEXT = ["The cat sat on the mat, and 12 dogs didn't. Größe!\n"] * 20
CHATML = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
SIZES = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 96,
}  # fmt: skip


def vocabulary(specials: list[str], begins: str | None = None) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=280, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TEXT, trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in specials])
    if begins is not None:
        pair = (begins, tokenizer.token_to_id(begins))
        tokenizer.post_processor = processors.TemplateProcessing(single=f"{begins} $A", special_tokens=[pair])
    return tokenizer


def checkpoint(family: str, folder: Path) -> Path:
    torch.manual_seed(5)
    names = {
        "gpt2": ["<|endoftext|>"],
        "llama": ["<|begin_of_text|>", "<|end_of_text|>"],
        "qwen3": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
    }[family]
    tokenizer = vocabulary(names, "<|begin_of_text|>" if family == "llama" else None)
    size = tokenizer.get_vocab_size()
    ends = {"bos_token_id": size - len(names), "eos_token_id": size - 1}
    if family == "gpt2":
        config = transformers.GPT2Config(vocab_size=size, n_positions=64, n_embd=32, n_layer=2, n_head=2, **ends)
    elif family == "llama":
        config = transformers.LlamaConfig(vocab_size=size, tie_word_embeddings=False, **SIZES, **ends)
    else:
        config = transformers.Qwen3Config(vocab_size=size + 40, head_dim=16, tie_word_embeddings=True, **SIZES, **ends)
    config.initializer_range = 0.2  # so that logits differ
    model = transformers.AutoModelForCausalLM.from_config(config)
    model = model.to(torch.bfloat16 if family == "qwen3" else torch.float32)
    model.save_pretrained(folder)
    template = {"chat_template": CHATML} if family == "qwen3" else {}
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=names[0], eos_token=names[-1], **template
    ).save_pretrained(folder)
    return folder
