// An agent with a real MCP server: its tools are name-spaced, allow-listed and called.
import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { mkdtemp, readFile, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import os from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { after, before, test } from "node:test";
import { promisify } from "node:util";

const replayProgram = path.join(path.dirname(process.env.LEGWORK_BIN), "legwork-replay");
let replay, url, folder;

before(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), "legwork-mcp-"));
  replay = spawn(replayProgram, { stdio: ["ignore", "pipe", "inherit"] });
  for await (const line of createInterface({ input: replay.stdout })) {
    url = line.split(" ")[0];
    break;
  }
});
after(() => replay.kill());

async function run(server) {
  const file = path.join(folder, "task.json");
  await writeFile(
    file,
    JSON.stringify({ messages: [{ role: "user", content: "hi" }], mcp_servers: [server] }),
  );
  const env = {
    ...process.env,
    ANTHROPIC_API_KEY: "k",
    ANTHROPIC_BASE_URL: `${url}/scenario/mcp-echo`,
    LEGWORK_SANDBOX: "off",
  };
  const ran = promisify(execFile)(process.env.LEGWORK_BIN, ["task", "run", "--json", "-C", folder, file], {
    env,
  });
  const { stdout } = await ran.catch((error) => error);
  return stdout
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
}

test("the server's tool is called, what is not allowed is unknown", async () => {
  const require = createRequire(import.meta.url);
  const manifest = require.resolve("@modelcontextprotocol/server-everything/package.json");
  const { bin } = JSON.parse(await readFile(manifest, "utf8"));
  const program = path.join(path.dirname(manifest), Object.values(bin)[0]);
  const everything = {
    name: "everything",
    command: process.execPath,
    args: [program, "stdio"],
    tools: ["echo"],
  };
  const events = await run(everything);
  const [echo, sum] = events.filter((event) => event.type === "tool_end");
  assert.deepEqual([echo.tool_state, echo.output], ["success", "Echo: over there"]);
  assert.deepEqual(
    [sum.tool_state, sum.output],
    ["error", "Tool execution error: Unknown tool: mcp__everything__get-sum"],
  );
  assert.equal(events.at(-1).type, "done", JSON.stringify(events.at(-1)));
  const [problem] = await run({ ...everything, tools: ["nonsense"] });
  assert.equal(problem.message, "MCP server 'everything' has no tool 'nonsense'");
});
