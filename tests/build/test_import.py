"""A checkpoint of others as a run: what is imported, what is recognised again, and what can be done with it."""

import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from groundup.build import build, check_expectations, import_facts, open_speaker, sample_conversation, verify
from groundup.build.models import open_model
from groundup.build.verify import find_stage
from groundup.inference import SamplingParams, generate
from groundup.interchange import export_hf, load_model, save_model
from groundup.model import Architecture, Transformer, initialise
from groundup.recipe import parse_recipe
from groundup.run import UserError, read_json, read_manifest, sha256_file
from groundup.tokenizer import Tokenizer, encode_chat, train_bpe
from groundup.training import load_start

transformers = pytest.importorskip("transformers")
MADE = runpy.run_path(str(Path(__file__).with_name("made_checkpoint.py")))
FAMILIES = ("gpt2", "llama", "qwen3")
PLAIN = "[hardware]\ndevice = 'cpu'\nprecision = 'fp32'\ncompile = false\nthreads = 1\nprocesses = 1\n"
TUNING = """
[sft]
steps = {steps}
sequence_length = 512
tokens_per_update = 512
micro_batch = 2
checkpoint_every = 2
packing = "best_fit"
data = ["{folder}/chats.jsonl"]
optimizer = {{ muon_lr = 0.0, adamw_lr = 1e-3, embedding_lr = 1e-3 }}
"""
NASTY = ["  two  spaces\n\tand a tab", "Größe, 世界 😀", "<|im_end|> 12345 <|endoftext|> don't", ""]


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    return {family: MADE["checkpoint"](family, folder / family) for family in FAMILIES}


@pytest.fixture(scope="module")
def imported(sources, tmp_path_factory):
    """A run of each family, with nothing but the import."""
    runs = {}
    for family, source in sources.items():
        runs[family] = tmp_path_factory.mktemp("runs") / family
        build(recipe_of(source), runs[family])
    return runs


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Conversations, of which some are held out, and preference pairs."""
    folder = tmp_path_factory.mktemp("data")
    chats = [
        {"messages": [{"role": "user", "content": f"Say {i}."}, {"role": "assistant", "content": f"It is {i}!"}]}
        for i in range(400)
    ]
    pairs = [{"prompt": f"Say {i}.", "chosen": f"It is {i}!", "rejected": "The cat."} for i in range(20)]
    for name, records in (("chats", chats), ("pairs", pairs)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def recipe_of(source, more="", *overrides):
    return parse_recipe(f"[import]\nsource = '{source}'\n{more}\n{PLAIN}", overrides)


def tuning(data, steps=6):
    return TUNING.format(steps=steps, folder=data)


def theirs(folder):
    """Their model in float32, and their tokenizer."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return model, transformers.AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize(("family", "rows", "begins", "template"), [
    ("gpt2", 0, [], False), ("llama", 0, [-2], False), ("qwen3", 40, [], True),
])  # fmt: skip
def test_what_is_known_of_an_import(sources, imported, family, rows, begins, template):
    run, tokenizer = imported[family], theirs(sources[family])[1]
    facts = import_facts(run)
    assert facts["family"] == family
    assert facts["tokens"] == len(tokenizer)
    assert facts["rows"] == len(tokenizer) + rows
    assert facts["begins"] == [len(tokenizer) + number for number in begins]
    assert facts["ends"] == [len(tokenizer) - 1]
    assert (facts["template"], facts["chats"]) == (template, False)
    assert facts["dtype"] == ("bfloat16" if family == "qwen3" else "float32")
    assert facts["left_out"] == []
    assert load_model(run / "import" / "final").head_weight.dtype == torch.float32  # what training begins from
    for file in (run / "import" / "source").iterdir():
        assert file.read_bytes() == (sources[family] / file.name).read_bytes()
    assert {"config.json", "tokenizer.json", "generation_config.json"} <= {
        file.name for file in (run / "import" / "source").iterdir()
    }
    assert verify(run).problems == ()
    assert verify(run).stages == ("import", "tokenizer")
    assert read_manifest(run / "tokenizer").inputs == {"import": read_manifest(run / "import").fingerprint}


@pytest.mark.parametrize("family", FAMILIES)
def test_their_ids_stay_and_ours_follow(sources, imported, family):
    known, run = theirs(sources[family])[1], Tokenizer.load(imported[family] / "tokenizer")
    for text in NASTY:
        expected = known.backend_tokenizer
        expected.encode_special_tokens = True
        assert run.encode(text) == expected.encode(text, add_special_tokens=False).ids
    assert run.special_id("<|pad|>") >= len(known)
    assert run.vocabulary_size == len(known) + (16 if family == "llama" else 15)
    if family != "llama":  # one role is theirs already
        assert run.endoftext == known.convert_tokens_to_ids("<|endoftext|>")
    if family == "qwen3":
        assert run.special_ids()["<|im_start|>"] == known.convert_tokens_to_ids("<|im_start|>")


@pytest.mark.parametrize("family", FAMILIES)
def test_new_tokens_take_unused_rows_first(imported, family):
    run = imported[family]
    facts, tokenizer = import_facts(run), Tokenizer.load(run / "tokenizer")
    before = load_model(run / "import" / "final")
    grown = load_start(run / "import" / "final", run, tokenizer)
    rows = max(facts["rows"], tokenizer.vocabulary_size)
    assert grown.arch.vocabulary_size == rows
    old, new = before.model.embed_tokens.weight, grown.model.embed_tokens.weight
    assert torch.equal(new[: facts["tokens"]], old[: facts["tokens"]])
    assert torch.equal(new[tokenizer.vocabulary_size : facts["rows"]], old[tokenizer.vocabulary_size :])
    pieces = read_json(run / "tokenizer" / "pieces.json")
    assert sorted(map(int, pieces)) == list(range(facts["tokens"], tokenizer.vocabulary_size))
    for number, ids in pieces.items():
        torch.testing.assert_close(new[int(number)], old[ids].double().mean(0).float())
    if family == "llama":
        torch.testing.assert_close(grown.lm_head.weight[-1], before.lm_head.weight[ids].double().mean(0).float())


@pytest.mark.parametrize("family", FAMILIES)
def test_an_import_is_asked_as_it_was_brought_up(sources, imported, family):
    """Greedy ids are those of `transformers` after what its tokenizer makes of the text, unused rows left out."""
    model, tokenizer = theirs(sources[family])
    ids = tokenizer("The cat sat").input_ids
    expected = []
    while len(expected) < 12 and tokenizer.eos_token_id not in expected:
        with torch.no_grad():
            logits = model(torch.tensor([ids + expected])).logits[0, -1]
        expected.append(int(logits[: len(tokenizer)].argmax()))
    opened = open_model(imported[family], find_stage(recipe_of(sources[family]), "import"))
    assert opened.model.logits(torch.zeros(1, 32)).shape[-1] == opened.model.arch.vocabulary_size == len(tokenizer)
    prompt = [*opened.begins, *opened.tokenizer.encode("The cat sat")]
    assert prompt == ids
    params = SamplingParams(max_tokens=12, stop_ids=opened.ends)
    assert generate(opened.model, [prompt], params, tokenizer=opened.tokenizer)[0].ids == expected
    speaker = open_speaker(imported[family])
    assert (speaker.stage, speaker.chats) == ("import", False)
    said = "".join(speaker.stream([{"role": "user", "content": "The cat sat"}], max_tokens=12))
    assert said == opened.tokenizer.decode(expected)


def test_done_before_wherever_the_source_lies_and_even_without_it(sources, tmp_path):
    source = shutil.copytree(sources["gpt2"], tmp_path / "source")
    run = tmp_path / "run"
    build(recipe_of(source), run)
    written = parse_recipe((run / "recipe.toml").read_text())
    assert len(written.import_.sha256) == 64
    assert "[model]" not in (run / "recipe.toml").read_text()
    assert build(written, run).skipped == ("import", "tokenizer")
    moved = source.rename(tmp_path / "moved")
    assert build(recipe_of(moved), run).skipped == ("import", "tokenizer")
    shutil.rmtree(moved)
    assert build(written, run).skipped == ("import", "tokenizer")
    another = written.model_copy(update={"run": written.run.model_copy(update={"seed": 2})})
    assert build(another, run).skipped == ("import",)  # in which nothing is random
    with pytest.raises(UserError, match="no directory"):
        build(written, run, fresh=True)
    assert verify(run).problems == ()  # what can't be made again was not removed
    with pytest.raises(UserError, match="no directory"):
        build(recipe_of(moved), run)


def test_a_changed_source_is_refused_where_it_is_named_and_imported_anew_where_not(sources, tmp_path):
    source = shutil.copytree(sources["gpt2"], tmp_path / "source")
    run = tmp_path / "run"
    build(recipe_of(source), run)
    written = parse_recipe((run / "recipe.toml").read_text())
    config = read_json(source / "tokenizer_config.json")
    (source / "tokenizer_config.json").write_text(json.dumps(config | {"model_max_length": 7}))
    with pytest.raises(UserError, match=r"are not those that the recipe names: their digest is [0-9a-f]{64}"):
        build(written, run)
    (source / "README.md").write_text("is not read")
    assert build(recipe_of(source), run).built == ("import", "tokenizer")


def test_only_fields_of_the_shape_that_differ_are_told(sources, tmp_path, capsys):
    build(recipe_of(sources["gpt2"], "[model]\nlayers = 9\nhidden_size = 32"), tmp_path)
    assert (
        "[model] is ignored, since the checkpoint has its own shape: layers = 9 (it has 2)\n" in capsys.readouterr().err
    )


def test_tuned_aligned_measured_exported(sources, data, tmp_path, capsys):
    """All that a run can do, from a padded checkpoint in bfloat16; rows no longer than its context."""
    more = (
        tuning(data)
        + f"""
[dpo]
steps = 3
pairs_per_update = 4
data = ["{data}/pairs.jsonl"]
optimizer = {{ muon_lr = 0.0, adamw_lr = 1e-4, embedding_lr = 1e-4 }}
[evaluate]
tasks = ["answers"]
[export]
[expect]
"sft/answers/held_out" = "<= 30"
"""
    )
    run = tmp_path / "run"
    recipe = recipe_of(sources["qwen3"], more)
    report = build(recipe, run)
    assert report.built == ("import", "tokenizer", "sft", "dpo", "evaluate", "export")
    assert "rows of 512 tokens are cut to the model's context of 96" in capsys.readouterr().err
    plan = read_json(run / "sft" / "plan.json")
    assert (plan["sequence_length"], plan["rows_per_update"], plan["micro_rows"]) == (96, 5, 5)  # 2 rows of 512 allowed
    assert build(recipe, run).built == ()
    assert verify(run).problems == ()
    results = read_json(run / "evaluate" / "results.json")
    assert list(results) == ["import", "sft", "dpo"]
    leaves = [of["answers"]["held_out"] for of in results.values()]
    assert {leaf["n"] for leaf in leaves} == {leaves[0]["n"]}
    assert leaves[0]["metric"] == "bits_per_byte"
    assert leaves[1]["value"] < leaves[0]["value"]  # it has learned
    assert all(outcome.met for outcome in check_expectations(recipe, run))
    talk = sample_conversation(run, seed=1)
    assert [message["role"] for message in talk] == ["user", "assistant"]
    assert talk[0]["content"].startswith("Say ")

    model, tokenizer = theirs(run / "export" / "hf")
    own, words = load_model(run / "dpo" / "final"), Tokenizer.load(run / "tokenizer")
    messages = [{"role": "user", "content": "Say 3."}]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True, return_tensors="pt")
    assert ids.input_ids[0].tolist() == encode_chat(words, messages, generation_prompt=True).ids
    with torch.no_grad():
        assert torch.equal(model(ids.input_ids).logits, own.logits(own(ids.input_ids)))


@pytest.mark.parametrize("family", FAMILIES)
def test_an_untouched_import_goes_out_as_it_came_in(sources, imported, tmp_path, family):
    run = shutil.copytree(imported[family], tmp_path / "run")
    build(recipe_of(sources[family], "[export]"), run)
    model, tokenizer = theirs(run / "export" / "hf")
    before, words = theirs(sources[family])
    ids = torch.randint(0, before.config.vocab_size, (2, 20), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(model(ids).logits, before(ids).logits)
    assert [tokenizer(text).input_ids for text in NASTY] == [words(text).input_ids for text in NASTY]
    assert tokenizer.chat_template == words.chat_template
    assert model.generation_config.eos_token_id == before.generation_config.eos_token_id
    kinds = [transformers.AutoConfig.from_pretrained(at).dtype for at in (run / "export" / "hf", sources[family])]
    assert kinds == [torch.bfloat16 if family == "qwen3" else torch.float32] * 2


def test_a_model_of_ours_comes_home(tmp_path):
    """Exported and imported again, weights are equal bit for bit, nothing is added, and it chats in our format."""
    tokenizer = Tokenizer(train_bpe(MADE["TEXT"], 300).to_str())
    tokenizer.save(tmp_path / "words")
    model = Transformer(
        Architecture(vocabulary_size=tokenizer.vocabulary_size, layers=1, hidden_size=16, heads=2, kv_heads=1,
                     head_dim=8, intermediate_size=24, context_length=64)
    )  # fmt: skip
    initialise(model, 3)
    save_model(model, tmp_path / "model")
    export_hf(tmp_path / "model", tmp_path / "words", tmp_path / "out")
    run = tmp_path / "run"
    build(recipe_of(tmp_path / "out"), run)
    assert import_facts(run)["chats"] is True
    assert read_json(run / "tokenizer" / "pieces.json") == {}
    assert Tokenizer.load(run / "tokenizer").special_ids() == tokenizer.special_ids()
    again = load_start(run / "import" / "final", run, Tokenizer.load(run / "tokenizer"))
    assert again.arch == model.arch
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), model.parameters(), strict=True))
    assert open_speaker(run).chats


@pytest.fixture(scope="module")
def continued(sources, tmp_path_factory):
    """Pretraining that goes on from an import, with a word of its own, on a corpus, measured before and after."""
    folder = tmp_path_factory.mktemp("continued")
    (folder / "texts").mkdir()
    for number in range(40):
        (folder / "texts" / f"{number}.txt").write_text(
            f"The cat number {number} sat on the mat, and dogs didn't. " * 3
        )
    more = f"""
[corpus]
sources = ["{folder}/texts"]
validation_fraction = 0.2
dedup = {{ exact = false }}
[tokenizer]
extra_tokens = [" number"]
[pretrain]
steps = 4
tokens_per_update = 256
micro_batch = 2
optimizer = {{ muon_lr = 0.0, adamw_lr = 1e-3, embedding_lr = 1e-3 }}
[evaluate]
tasks = ["bits_per_byte"]
"""
    return recipe_of(sources["llama"], more), folder / "run"


def test_pretraining_goes_on_in_their_ids(sources, continued):
    recipe, run = continued
    assert recipe.pretrain.start == "import"
    assert build(recipe, run).built == ("import", "corpus", "tokenizer", "pretrain", "evaluate")
    tokenizer = Tokenizer.load(run / "tokenizer")
    known = theirs(sources["llama"])[1]
    assert len(tokenizer.encode(" number")) == 1
    assert tokenizer.encode("The cat sat") == known("The cat sat", add_special_tokens=False).input_ids
    assert load_model(run / "pretrain" / "final").arch.vocabulary_size == tokenizer.vocabulary_size
    assert read_manifest(run / "tokenizer").inputs.keys() == {"corpus", "import"}
    results = read_json(run / "evaluate" / "results.json")
    assert (
        results["pretrain"]["bits_per_byte"]["validation"]["value"]
        < (results["import"]["bits_per_byte"]["validation"]["value"])
    )


def test_bits_per_byte_of_an_import_are_those_of_transformers(sources, continued):
    """Each text after <|begin_of_text|>, its first token not scored; the run's new tokens take no part."""
    recipe, run = continued
    if read_manifest(run / "evaluate") is None:
        build(recipe, run)
    from groundup.corpus import read_documents

    model, tokenizer = theirs(sources["llama"])
    words = Tokenizer.load(run / "import" / "tokenizer")
    nats, count = 0.0, 0
    for document in read_documents(run / "corpus", "validation"):
        ids = tokenizer(document.text).input_ids
        assert len(ids) <= 96
        with torch.no_grad():
            logprobs = F.log_softmax(model(torch.tensor([ids])).logits[0].double(), -1)
        nats -= sum(float(logprobs[place - 1, ids[place]]) for place in range(2, len(ids)))
        count += len(words.decode_bytes(ids[2:]))
    leaf = read_json(run / "evaluate" / "results.json")["import"]["bits_per_byte"]["validation"]
    assert leaf["value"] == pytest.approx(nats / count / 0.6931471805599453, rel=1e-5)


def test_a_vocabulary_that_is_elsewhere(real_data, tmp_path):
    """GPT-2's weights beside OpenAI's two files: 50,257 tokens in 50,304 rows."""
    config = transformers.GPT2Config(vocab_size=50304, n_positions=32, n_embd=8, n_layer=1, n_head=1)
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    recipe = recipe_of(tmp_path / "gpt2", f"tokenizer = '{real_data / 'gpt2_bpe'}'")
    run = tmp_path / "run"
    build(recipe, run)
    facts, tokenizer = import_facts(run), Tokenizer.load(run / "tokenizer")
    assert (facts["tokens"], facts["rows"]) == (50257, 50304)
    assert (tokenizer.endoftext, tokenizer.vocabulary_size) == (50256, 50257 + 15)
    assert tokenizer.encode("Hello world") == [15496, 995]
    grown = load_start(run / "import" / "final", run, tokenizer)
    assert grown.arch.vocabulary_size == 50304


@pytest.mark.slow
def test_a_killed_tuning_reaches_the_same_weights(sources, data, tmp_path):
    text = f"[import]\nsource = '{sources['qwen3']}'\n{tuning(data, 60)}\n{PLAIN}"
    (tmp_path / "recipe.toml").write_text(text)
    command = [sys.executable, "-m", "groundup", "build", str(tmp_path / "recipe.toml"), "--out"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([*command, str(tmp_path / "whole")], check=True, env=environment, capture_output=True)
    run, hits = tmp_path / "killed", 0
    for number in (4, 20, 40):
        process = subprocess.Popen([*command, str(run)], env=environment, stderr=subprocess.DEVNULL)
        while process.poll() is None and not (run / "sft" / "checkpoints" / f"step-{number:08d}").exists():
            pass
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            hits += 1
        process.wait()
    subprocess.run([*command, str(run)], check=True, env=environment, capture_output=True)
    assert hits == 3
    finals = [sha256_file(place / "sft" / "final" / "model.safetensors") for place in (run, tmp_path / "whole")]
    assert finals[0] == finals[1]
    assert verify(run).problems == ()
