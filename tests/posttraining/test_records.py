"""The layouts people have, read as messages; every mistake names its file, line and key."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from groundup.posttraining import conversation_of, preference_of, read_conversations, read_preferences
from groundup.posttraining.records import tools_of
from groundup.recipe import DataTable
from groundup.run import UserError
from groundup.tokenizer import Tokenizer, encode_chat
from groundup.tokenizer.chat import parse_reply

USER, ASSISTANT = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}


def write(path: Path, records: list[Any]) -> str:
    lines = "\n".join(json.dumps(record) for record in records).encode() + b"\n"
    path.write_bytes(gzip.compress(lines) if path.suffix == ".gz" else lines)
    return str(path)


@pytest.mark.parametrize(
    ("record", "messages"),
    [
        ({"messages": [USER, ASSISTANT], "id": 7}, [USER, ASSISTANT]),
        (
            {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]},
            [USER, ASSISTANT],
        ),
        ({"instruction": "Hi", "output": "Hello"}, [USER, ASSISTANT]),
        ({"instruction": "Hi", "input": "", "output": "Hello", "system": ""}, [USER, ASSISTANT]),
        (
            {"instruction": "Add", "input": "2 and 3", "output": "5", "system": "Be brief"},
            [
                {"role": "system", "content": "Be brief"},
                {"role": "user", "content": "Add\n\n2 and 3"},
                {"role": "assistant", "content": "5"},
            ],
        ),
    ],
    ids=["messages", "sharegpt", "alpaca", "alpaca-empty-input", "alpaca-whole"],
)
def test_conversations(record, messages):
    assert conversation_of(record, "here:1") == messages


CALL = {"name": "weather", "arguments": {"city": "Oslo"}}


@pytest.mark.parametrize(
    ("record", "messages"),
    [
        (
            {"messages": [USER, {"role": "assistant", "content": None, "tool_calls": [{"function": CALL}]}]},
            [USER, {"role": "assistant", "content": "", "tool_calls": [{"function": CALL}]}],
        ),
        (
            {"messages": [{"role": "tool", "tool_call_id": "a", "name": "f", "content": {"c": 7}}, ASSISTANT]},
            [{"role": "tool", "tool_call_id": "a", "content": {"c": 7}}, ASSISTANT],
        ),
        ({"messages": [{**ASSISTANT, "train": False, "weight": 0}]}, [{**ASSISTANT, "train": False, "weight": 0}]),
        ({"messages": [{**ASSISTANT, "tool_calls": None, "audio": None}]}, [ASSISTANT]),
        (
            {
                "conversations": [
                    {"from": "human", "value": "Hi"},
                    {"from": "function_call", "value": json.dumps(CALL)},
                    {"from": "observation", "value": '{"c": 7}'},
                    {"from": "gpt", "value": "Hello"},
                ]
            },
            [
                USER,
                {"role": "assistant", "content": "", "tool_calls": [CALL]},
                {"role": "tool", "content": '{"c": 7}'},
                ASSISTANT,
            ],
        ),
        (
            {"conversations": [{"from": "function_call", "value": json.dumps([CALL, CALL])}]},
            [{"role": "assistant", "content": "", "tool_calls": [CALL, CALL]}],
        ),
    ],
    ids=["call", "result", "weights", "nulls", "sharegpt", "sharegpt-parallel"],
)
def test_calls_and_results_pass_through(record, messages):
    assert conversation_of(record, "here:1") == messages


@pytest.mark.parametrize(
    ("tools", "found"),
    [([CALL], [CALL]), (json.dumps([CALL]), [CALL]), ("[]", []), ("", []), (None, []), ("null", [])],
)
def test_tools_on_offer(tmp_path, tools, found):
    path = write(tmp_path / "a.jsonl", [{"messages": [USER, ASSISTANT], "tools": tools}])
    assert [conversation.tools for conversation in read_conversations([path], seed=0)] == [found]


@pytest.mark.parametrize("tools", ["[", "7", 7, {"name": "f"}, ["f"]])
def test_bad_tools_say_what_and_where(tools):
    with pytest.raises(UserError, match="here:3") as caught:
        tools_of({"tools": tools}, "here:3")
    assert "a list of definitions" in str(caught.value)


def test_real_tool_calls_are_learned_and_come_back(tmp_path: Path, real_data: Path, tokenizer: Tokenizer) -> None:
    """Glaive's 300 conversations: every call is supervised and read back as the file has it, no result is."""
    with gzip.open(real_data / "instruct" / "llamafactory_glaive_toolcall_en_demo.json.gz") as file:
        records = json.load(file)
    path = write(tmp_path / "glaive.jsonl", records)
    calls = results = offers = 0
    for record, conversation in zip(records, read_conversations([path], seed=0), strict=True):
        chat = encode_chat(tokenizer, conversation.messages, tools=conversation.tools)
        replies = []
        for place, number in enumerate(chat.ids):
            if number == tokenizer.assistant:
                stop = chat.ids.index(tokenizer.end, place)
                replies.append(parse_reply(tokenizer, chat.ids[place + 1 : stop + 1]))
                assert all(chat.loss_mask[place + 1 : stop + 1])
        assert sum(chat.loss_mask) == sum(
            chat.ids.index(tokenizer.end, place) - place
            for place, number in enumerate(chat.ids)
            if number == tokenizer.assistant
        )
        said = [turn for turn in record["conversations"] if turn["from"] in ("gpt", "function_call")]
        for turn, reply in zip(said, replies, strict=True):
            call = turn["from"] == "function_call"
            assert reply.complete
            assert reply.content == ("" if call else turn["value"])
            assert reply.tool_calls == ([json.loads(turn["value"])] if call else [])
            calls += call
        results += sum(message["role"] == "tool" for message in conversation.messages)
        offers += bool(conversation.tools)
        assert (chat.ids[0] == tokenizer.system) == bool(conversation.tools)
    assert (calls, results, offers) == (211, 211, 191)


def test_texts_are_not_stripped():
    padded = [{"role": "user", "content": " a\n"}, {"role": "assistant", "content": "\n b "}]
    assert conversation_of({"messages": padded}, "") == padded


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"text": "a"}, ["no conversation", "'text'", "here:3"]),
        ({"messages": []}, ["no messages", "here:3"]),
        ({"messages": "Hi"}, ["no messages", "here:3"]),
        ({"messages": ["Hi"]}, ["a message is 'Hi'", "here:3 message 0"]),
        ({"messages": [{"role": "user"}]}, ["'content' is None", "here:3 message 0"]),
        ({"messages": [USER, {"role": "assistant", "content": 5}]}, ["'content' is 5", "here:3 message 1"]),
        ({"messages": [{"content": "Hi"}]}, ["'role' is None", "here:3 message 0"]),
        ({"messages": [USER]}, ["without an assistant turn", "here:3"]),
        ({"conversations": [{"from": "robot", "value": "Hi"}]}, ["unknown speaker 'robot'", "here:3 message 0"]),
        ({"conversations": [{"from": "human"}]}, ["'value' is None", "here:3 message 0"]),
        ({"conversations": [{"from": "function_call", "value": "f()"}]}, ["not JSON", "here:3 message 0"]),
        ({"messages": [{"role": "tool"}, ASSISTANT]}, ["'content' is None", "here:3 message 0"]),
        ({"instruction": "Hi"}, ["'output' is None", "here:3"]),
        ({"instruction": "Hi", "input": 4, "output": "a"}, ["'input' is 4", "here:3"]),
    ],
)
def test_a_bad_conversation_says_what_and_where(record, words):
    with pytest.raises(UserError) as caught:
        conversation_of(record, "here:3")
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": "Hi", "chosen": "Hello", "rejected": "Go away"},
        {
            "prompt": [USER],
            "chosen": [ASSISTANT],
            "rejected": [{"role": "assistant", "content": "Go away"}],
        },
        {"chosen": [USER, ASSISTANT], "rejected": [USER, {"role": "assistant", "content": "Go away"}]},
        {"prompt": "Hi", "chosen": [USER, ASSISTANT], "rejected": [USER, {"role": "assistant", "content": "Go away"}]},
        {
            "chosen": "\n\nHuman: Hi\n\nAssistant: Hello",
            "rejected": "\n\nHuman: Hi\n\nAssistant: Go away",
        },
    ],
    ids=["texts", "messages", "whole-messages", "prompt-and-whole-messages", "hh-rlhf"],
)
def test_preferences(record):
    preference = preference_of(record, "here:1")
    assert preference.prompt == [USER]
    assert (preference.chosen, preference.rejected) == ("Hello", "Go away")


def test_a_transcript_of_many_turns():
    before = "\n\nHuman: One?\n\nAssistant: Two.\n\nSo it is.\n\nHuman: Three?\n\nAssistant:"
    preference = preference_of({"chosen": f"{before} Four.", "rejected": f"{before}"}, "")
    assert [message["role"] for message in preference.prompt] == ["user", "assistant", "user"]
    assert preference.prompt[1]["content"] == "Two.\n\nSo it is."
    assert (preference.chosen, preference.rejected) == ("Four.", "")


def test_earlier_turns_are_kept_beside_a_prompt():
    """Some sets repeat the last question as `prompt` although the messages hold the whole conversation."""
    system = {"role": "system", "content": "Be kind"}
    record = {"prompt": "Hi ", "chosen": [system, USER, ASSISTANT], "rejected": [system, USER, ASSISTANT]}
    assert preference_of(record, "").prompt == [system, USER]


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"prompt": "Hi", "chosen": "Hello"}, ["no preference", "['chosen', 'prompt']", "here:3"]),
        ({"prompt": "Hi", "chosen": 4, "rejected": "b"}, ["'chosen' is 4", "here:3"]),
        ({"prompt": 4, "chosen": "a", "rejected": "b"}, ["no messages", "here:3 prompt"]),
        ({"prompt": [], "chosen": "a", "rejected": "b"}, ["no messages", "here:3 prompt"]),
        ({"chosen": [ASSISTANT], "rejected": [ASSISTANT]}, ["no prompt", "here:3"]),
        ({"chosen": [ASSISTANT, USER], "rejected": "b"}, ["does not end with an assistant turn", "here:3 chosen"]),
        ({"chosen": "Hello", "rejected": "b"}, ["not a transcript", "here:3 chosen"]),
        ({"prompt": "Hi", "chosen": "a", "rejected": "b", "tools": [CALL]}, ["tools on offer", "here:3"]),
        (
            {"prompt": "Hi", "chosen": [{**ASSISTANT, "tool_calls": [CALL]}], "rejected": "b"},
            ["an answer that calls tools", "here:3 chosen"],
        ),
        (
            {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: c\n\nAssistant: b"},
            ["do not share their prompt", "here:3"],
        ),
        (
            {"prompt": "Bye", "chosen": [USER, ASSISTANT], "rejected": [USER, ASSISTANT]},
            ["do not end with `prompt`", "here:3 chosen"],
        ),
    ],
)
def test_a_bad_preference_says_what_and_where(record, words):
    with pytest.raises(UserError) as caught:
        preference_of(record, "here:3")
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_files_are_read_line_by_line(tmp_path, name):
    path = write(tmp_path / name, [{"messages": [USER, ASSISTANT]}, {"instruction": "Hi", "output": "2"}])
    found = list(read_conversations([path], seed=0))
    assert [item.messages[-1]["content"] for item in found] == ["Hello", "2"]
    assert [item.where for item in found] == [f"{path}:1", f"{path}:2"]
    assert [item.source for item in found] == [0, 0]


def test_blank_lines_count_as_lines_but_not_as_records(tmp_path):
    path = tmp_path / "a.jsonl"
    record = json.dumps({"messages": [USER, ASSISTANT]})
    path.write_text(f"\n{record}\n\n{record}\n{record}")
    found = list(read_conversations([DataTable(path=str(path), count=2)], seed=0))
    assert [item.where for item in found] == [f"{path}:2", f"{path}:4"]


def test_sources_come_in_order_with_their_numbers(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"messages": [USER, ASSISTANT]}] * 3)
    tables = [DataTable(path="builtin:storyworld", count=2), DataTable(path=path, count=1), path]
    assert [item.source for item in read_conversations(tables, seed=0)] == [0, 0, 1, 2, 2, 2]


def test_preference_files_keep_the_axis(tmp_path):
    record = {"prompt": "Hi", "chosen": "a", "rejected": "b", "axis": "helpful"}
    path = write(tmp_path / "p.jsonl.gz", [record])
    (pair,) = read_preferences([path], seed=0)
    assert (pair.preference.axis, pair.where) == ("helpful", f"{path}:1")
    assert len(list(read_preferences([DataTable(path="builtin:storyworld", count=5)], seed=0))) == 5


@pytest.mark.parametrize(
    ("line", "what"), [(b'{"messages": [', "not JSON"), (b"[1, 2]", "a list, not an object"), (b'"\xff"', "not JSON")]
)
def test_a_broken_line_is_named(tmp_path, line, what):
    path = tmp_path / "a.jsonl"
    path.write_bytes(json.dumps({"messages": [USER, ASSISTANT]}).encode() + b"\n" + line + b"\n")
    with pytest.raises(UserError, match=what) as caught:
        list(read_conversations([str(path)], seed=0))
    assert caught.value.where == f"{path}:2"


def test_a_missing_or_damaged_file_is_the_users_mistake(tmp_path):
    with pytest.raises(UserError, match="no such data file"):
        list(read_conversations([str(tmp_path / "none.jsonl")], seed=0))
    path = Path(write(tmp_path / "a.jsonl.gz", [{"messages": [USER, ASSISTANT]}] * 200))
    whole = path.read_bytes()
    for damaged in (whole[:-9], b"plain text", whole[:20] + b"\xff\xff\xff" + whole[23:]):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="damaged gzip") as caught:
            list(read_conversations([str(path)], seed=0))
        assert caught.value.where == str(path)
