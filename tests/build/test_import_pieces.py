"""Checkpoints with a vocabulary of SentencePiece as runs: imported, tuned, exported, read by `transformers`."""

import json
import os
import runpy
from pathlib import Path

import pytest
import torch

os.environ["HF_HUB_OFFLINE"] = "1"
transformers = pytest.importorskip("transformers")

from groundup.build import build, import_facts  # noqa: E402
from groundup.interchange import export_hf, load_model  # noqa: E402
from groundup.recipe import parse_recipe  # noqa: E402
from groundup.tokenizer import Tokenizer, encode_chat  # noqa: E402

PIECES = runpy.run_path(str(Path(__file__).parents[1] / "tokenizer" / "made_pieces.py"))
SIZES = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 128, "initializer_range": 0.2,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None,
}  # fmt: skip
RECIPE = """
[import]
source = '{source}'
[sft]
steps = 2
sequence_length = 128
tokens_per_update = 256
micro_batch = 2
packing = "best_fit"
data = ["{chats}"]
optimizer = {{ muon_lr = 0.0, adamw_lr = 1e-3, embedding_lr = 1e-3 }}
[hardware]
device = 'cpu'
precision = 'fp32'
compile = false
threads = 1
processes = 1
"""
CHATS = [
    [{"role": "user", "content": f"Say {i}.\n\n  {word}"}, {"role": "assistant", "content": f"It is {i}!"}]
    for i, word in enumerate(["été", "", "the  cat", "</s>"] * 50)
]


def checkpoint(family, folder):
    torch.manual_seed(3)
    tokenizer = PIECES["piece_tokenizer"]("gemma" if family == "gemma3_text" else family)
    size = tokenizer.get_vocab_size()
    if family == "mistral":
        config = transformers.MistralConfig(vocab_size=size, sliding_window=64, tie_word_embeddings=False, **SIZES)
    else:
        config = transformers.Gemma3TextConfig(vocab_size=size + 64, sliding_window=16, **SIZES)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("family", ["mistral", "gemma3_text"])
def test_imported_tuned_and_exported(family, tmp_path):
    source = checkpoint(family, tmp_path / "source")
    chats = tmp_path / "chats.jsonl"
    chats.write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in CHATS))
    run = tmp_path / "run"
    build(parse_recipe(RECIPE.format(source=source, chats=chats)), run)
    tokenizer, facts = Tokenizer.load(run / "tokenizer"), import_facts(run)
    assert tokenizer.sentencepiece
    assert facts["ends"] == [2]
    assert tokenizer.vocabulary_size == facts["tokens"] + 16

    export_hf(run / "sft" / "final", run / "tokenizer", tmp_path / "out", name="tuned")
    read = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    ours = load_model(run / "sft" / "final").eval()
    for messages in CHATS[:4]:
        ids = encode_chat(tokenizer, messages).ids
        assert tokenizer.decode(ids) == "".join(message["content"] for message in messages)
        if "</s>" not in messages[0]["content"]:  # which transformers takes for the special token
            assert read.apply_chat_template(messages, return_dict=False) == ids
        assert read.decode(ids, skip_special_tokens=True) == tokenizer.decode(ids)
        with torch.no_grad():
            expected, found = model(torch.tensor([ids])).logits, ours.logits(ours(torch.tensor([ids])))
        assert (expected - found)[0].abs().max() < 1e-4

    export_hf(
        run / "import" / "final", None, tmp_path / "back", source_tokenizer=run / "import" / "source", name="as it was"
    )
    back = transformers.AutoTokenizer.from_pretrained(tmp_path / "back")
    known = transformers.AutoTokenizer.from_pretrained(source)
    assert back("The cat  sat").input_ids == known("The cat  sat").input_ids
