// The official SDK and our own client, side by side on every scenario of the replayed Messages
// API: what one of them makes of a stream, the other one must make of it as well.
import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { mkdtemp, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { after, before, test } from "node:test";
import { promisify } from "node:util";
import Anthropic from "@anthropic-ai/sdk";

const replayProgram = path.join(path.dirname(process.env.LEGWORK_BIN), "legwork-replay");
let replay, url, folder;
const scenarios = [
  "text",
  "tool",
  "parallel-tools",
  "thinking",
  "max-tokens",
  "stop-sequence",
  "pause-turn",
  "refusal",
  "context-window",
  "compaction",
  "unknown-event",
  "slow",
  "cut",
  "end-early",
  "malformed",
  "error-midway",
  "overloaded",
  "rate-limited",
  "invalid",
  "no-model",
];

before(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), "legwork-messages-"));
  replay = spawn(replayProgram, { stdio: ["ignore", "pipe", "inherit"] });
  for await (const line of createInterface({ input: replay.stdout })) {
    const [address, known] = line.split(" ");
    assert.deepEqual(known.split(","), scenarios, "every scenario is compared");
    url = address;
    break;
  }
});
after(() => replay.kill());

/** What the official SDK makes of it. */
async function official(name) {
  const client = new Anthropic({ apiKey: "k", baseURL: `${url}/scenario/${name}`, maxRetries: 0 });
  let text = "";
  try {
    const stream = client.messages.stream({
      model: "claude-sonnet-4-20250514",
      max_tokens: 100,
      messages: [{ role: "user", content: "hi" }],
    });
    stream.on("text", (piece) => (text += piece));
    const message = await stream.finalMessage();
    const tools = message.content
      .filter((block) => block.type === "tool_use")
      .map(({ id, name, input }) => ({ id, name, input }));
    return { text, tools, stop: message.stop_reason, usage: message.usage };
  } catch (error) {
    return { failed: true, text, status: error.status };
  }
}

/** What our client makes of it: an agent's first turn. */
async function ours(name) {
  const file = path.join(folder, `${name}.json`);
  const tools = ["grep", "read_file", "list_files"];
  await writeFile(file, JSON.stringify({ max_turns: 1, tools, messages: [{ role: "user", content: "hi" }] }));
  const env = {
    ...process.env,
    ANTHROPIC_API_KEY: "k",
    ANTHROPIC_BASE_URL: `${url}/scenario/${name}`,
    LEGWORK_API_RETRIES: "0",
    LEGWORK_SANDBOX: "off",
  };
  const run = promisify(execFile)(process.env.LEGWORK_BIN, ["task", "run", "--json", "-C", folder, file], {
    env,
  });
  const { stdout } = await run.catch((error) => error);
  const events = stdout
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
  const end = events.at(-1);
  const of = (type) => events.filter((event) => event.type === type);
  return {
    text: of("token")
      .map((event) => event.text)
      .join(""),
    tools: of("tool_start")
      .filter((event, i, all) => all.findIndex((other) => other.tool_id === event.tool_id) !== i)
      .map((event) => ({ id: event.tool_id, name: event.tool_name, input: event.args ?? {} })),
    begun: of("tool_start"),
    end,
  };
}

for (const name of scenarios) {
  test(`${name}: both read it alike`, async () => {
    const [theirs, mine] = [await official(name), await ours(name)];
    assert.equal(mine.text, theirs.text);
    if (theirs.failed) {
      assert.equal(mine.end.code, "api_error", JSON.stringify(mine.end));
      if (theirs.status)
        assert.ok(mine.end.message.includes(`Claude API error: ${theirs.status}`), mine.end.message);
      return;
    }
    const { usage } = mine.end;
    assert.equal(usage.input_tokens, theirs.usage.input_tokens);
    assert.equal(usage.output_tokens, theirs.usage.output_tokens);
    assert.equal(usage.cache_read_input_tokens, theirs.usage.cache_read_input_tokens);
    assert.equal(usage.cache_creation_input_tokens, theirs.usage.cache_creation_input_tokens);
    switch (theirs.stop) {
      case "end_turn":
        assert.equal(mine.end.type, "done");
        break;
      case "tool_use":
        assert.deepEqual(mine.tools, theirs.tools);
        assert.equal(mine.end.code, "max_turns");
        break;
      // Both go on with another turn, which there is none of.
      case "max_tokens":
      case "pause_turn":
        assert.equal(mine.end.code, "max_turns");
        break;
      default:
        assert.ok(mine.end.message.startsWith(`Unexpected stop reason: ${theirs.stop}`), mine.end.message);
    }
  });
}
