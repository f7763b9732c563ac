"""The chat format as a Jinja template, by which stock tools write the same ids as `chat.encode_chat`."""

from groundup.tokenizer.special import ASSISTANT, END, ROLES, SYSTEM, TOOL, TOOL_FIELDS, TOOLS_HEADING

# Every tag strips the white space around it, so the lay-out below never shows, in whatever way an engine trims.
# `space` is a namespace because a plain variable set inside a loop is lost at the loop's end.
_BODY = """
{%- set space = namespace(offer=heading, text='', calls=[], place=0) -%}
{%- if not messages -%}{{ raise_exception('a chat without messages') }}{%- endif -%}
{%- if tools -%}
  {%- for tool in tools -%}
    {%- set function = tool['function'] if tool['function'] else tool -%}
    {%- if function['name'] is not string or not function['name'] -%}
      {{ raise_exception('a tool without a name') }}
    {%- endif -%}
    {%- set space.offer = space.offer + '\\n{"name": ' + function['name']|tojson -%}
    {%- for field in fields -%}
      {%- if function[field] -%}
        {%- set space.offer = space.offer + ', "' + field + '": ' + function[field]|tojson -%}
      {%- endif -%}
    {%- endfor -%}
    {%- set space.offer = space.offer + '}' -%}
  {%- endfor -%}
  {%- if messages[0]['role'] != 'system' -%}{{ system + space.offer + end }}{%- endif -%}
{%- endif -%}
{%- for message in messages -%}
  {%- set role = message['role'] -%}
  {%- set content = message['content'] -%}
  {%- if role not in roles -%}{{ raise_exception('unknown role ' ~ role) }}{%- endif -%}
  {%- if role == 'system' and not loop.first -%}
    {{ raise_exception('a system message that is not the first') }}
  {%- endif -%}
  {%- if message['tool_calls'] and role != 'assistant' -%}
    {{ raise_exception('tool calls in a message of role ' ~ role) }}
  {%- endif -%}
  {%- if content is string -%}
    {%- set space.text = content -%}
  {%- elif content is not defined or content is none -%}
    {%- if not message['tool_calls'] -%}{{ raise_exception('a message without a content') }}{%- endif -%}
    {%- set space.text = '' -%}
  {%- elif role == 'tool' -%}
    {%- set space.text = content|tojson -%}
  {%- else -%}
    {{ raise_exception('a content that is not a text') }}
  {%- endif -%}
  {%- if role == 'system' and tools -%}
    {%- set space.text = space.text + ('\\n\\n' if space.text else '') + space.offer -%}
  {%- endif -%}
  {%- if role == 'tool' -%}
    {%- if message['tool_call_id'] and space.place < space.calls|length -%}
      {%- set asked = space.calls[space.place]['id'] -%}
      {%- if asked and asked != message['tool_call_id'] -%}
        {{ raise_exception('the results of tools do not stand in the order of their calls') }}
      {%- endif -%}
    {%- endif -%}
    {%- set space.place = space.place + 1 -%}
  {%- else -%}
    {%- set space.calls = message['tool_calls'] if message['tool_calls'] else [] -%}
    {%- set space.place = 0 -%}
    {%- for call in space.calls -%}
      {%- set function = call['function'] if call['function'] else call -%}
      {%- if function['name'] is not string or not function['name'] -%}
        {{ raise_exception('a call of a tool without a name') }}
      {%- endif -%}
      {%- set arguments = function['arguments'] if function['arguments'] else {} -%}
      {%- if arguments is not mapping -%}
        {{ raise_exception('the arguments of a call must be an object here, not a text that holds one') }}
      {%- endif -%}
      {%- set space.text = space.text + call_opens + '{"name": ' + function['name']|tojson -%}
      {%- set space.text = space.text + ', "arguments": ' + arguments|tojson + '}' -%}
    {%- endfor -%}
  {%- endif -%}
  {{- '<|' + role + '|>' -}}
  {%- if role == 'assistant' and message['train'] is not false and message['weight'] != 0 -%}
    LEARNED
  {%- else -%}
    {{- space.text + end -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ assistant }}{%- endif -%}
"""


def chat_template(*, learned_marks: bool = True) -> str:
    """The Jinja template of the chat format.

    `transformers`' apply_chat_template(messages, tools=…, add_generation_prompt=…) gives the ids of
    `encode_chat`, and with return_assistant_tokens_mask=True its loss mask, on two conditions:

    * no text spells a special token. A template renders one string first, where such a text would become the
      token; `sanitize_control_tokens=True` of newer `transformers` prevents that.
    * the arguments of calls are objects: Jinja can't read the JSON text of OpenAI's form, and it is refused.

    It refuses what `encode_chat` refuses, other than values that are not JSON and a `train` or `weight` of the
    wrong type.

    Args:
        learned_marks: keep {% generation %} and {% endgeneration %} around what is learned. `transformers`
            makes its mask from them and llama.cpp ignores them. Plain Jinja, minijinja and what is built on
            them stop at a tag that they don't know: for those, leave the marks out.
    """
    constants = {
        "heading": TOOLS_HEADING,
        "fields": list(TOOL_FIELDS),
        "roles": list(ROLES),
        "system": SYSTEM,
        "assistant": ASSISTANT,
        "end": END,
        "call_opens": TOOL,
    }
    head = "".join(f"{{%- set {name} = {value!r} -%}}" for name, value in constants.items())
    learned = "{{ space.text + end }}"
    if learned_marks:
        learned = "{% generation %}" + learned + "{% endgeneration %}"
    return head + _BODY.strip("\n").replace("LEARNED", learned)
