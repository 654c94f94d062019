// Unmodified socket.io-client, of the original's version and the newest, against the real binary.
import assert from "node:assert/strict";
import net from "node:net";
import { after, before, test } from "node:test";
import { io as newest } from "socket.io-client";
import { io as original } from "socket.io-client-4.7";
import { serve, sleep, until } from "./lib/serve.mjs";

let server;
before(async () => {
  server = await serve({ "index.js": "console.log(1)\n", "src/a.txt": "a" });
});
after(async () => assert.equal(await server.stop(), 0));

const open = [];
after(() => open.forEach((socket) => socket.disconnect()));

function connect(io, options = {}, url = server.url) {
  const socket = io(url, { forceNew: true, reconnectionDelay: 20, reconnectionDelayMax: 100, ...options });
  open.push(socket);
  socket.out = "";
  socket.on("terminal:data", (said) => (socket.out += said.data));
  return socket;
}

for (const [version, io] of [
  ["4.7", original],
  ["newest", newest],
]) {
  test(`${version}: starts by polling, upgrades, and every answer is the protocol's`, async () => {
    const socket = connect(io);
    const upgraded = new Promise((resolve) => socket.io.engine.on("upgrade", (t) => resolve(t.name)));
    const refresh = new Promise((resolve) => socket.once("file:refresh", resolve));
    const tree = await socket.emitWithAck("fetchDir", { path: "/workspace" });
    assert.deepEqual(await refresh, tree);
    const [index, src] = ["index.js", "src"].map((name) => tree.tree.find((node) => node.name === name));
    assert.deepEqual(index, { name: "index.js", type: "file", path: `${server.workspace}/index.js` });
    assert.equal(src.children[0].path, `${server.workspace}/src/a.txt`);
    const content = await socket.emitWithAck("fetchContent", { path: `${server.workspace}/index.js` });
    assert.deepEqual(content, { content: "console.log(1)\n", path: `${server.workspace}/index.js` });
    const missing = await socket.emitWithAck("fetchContent", { path: "nowhere" });
    assert.deepEqual(missing, { error: "no such file or directory: nowhere", code: "not_found" });
    assert.equal(await upgraded, "websocket");
    assert.deepEqual(await socket.emitWithAck("terminal:write", { data: "echo $((40+2))x\n" }), {
      success: true,
    });
    await until("the output", () => socket.out.includes("42x\r\n"));
  });

  for (const transports of [["polling"], ["websocket"]]) {
    test(`${version} over ${transports}: binary, Unicode and large payloads survive`, async () => {
      const socket = connect(io, { transports });
      const text = `ä€😀\u001e\u0000${"x".repeat(3 << 20)}`;
      assert.deepEqual(await socket.emitWithAck("updateContent", { path: "big.txt", content: text }), {
        success: true,
        path: `${server.workspace}/big.txt`,
      });
      assert.equal((await socket.emitWithAck("fetchContent", "big.txt")).content, text);
      const bytes = Buffer.from([0, 255, 128, 10]);
      await socket.emitWithAck("updateContent", { path: "bytes", content: bytes });
      const read = await socket.emitWithAck("fetchContent", "bytes");
      assert.equal(read.encoding, "base64");
      assert.deepEqual(Buffer.from(read.content_base64, "base64"), bytes);
      await socket.emitWithAck("terminal:write", { data: Buffer.from("echo b$((1+1))n\n") });
      await until("the output", () => socket.out.includes("b2n"));
    });
  }
}

test("50,000 messages in a burst arrive, in order", async () => {
  const socket = connect(newest, { transports: ["websocket"] });
  await socket.emitWithAck("terminal:write", { data: "stty -echo; cat > burst.txt\n" });
  await sleep(300);
  const count = 50_000;
  let want = "";
  let last;
  for (let n = 0; n < count; n += 1) {
    want += `${n}\n`;
    socket.emit("terminal:write", { data: `${n}\n` }, (said) => {
      if (n === count - 1) last = said;
      assert.deepEqual(said, { success: true });
    });
  }
  await until("the last answer", () => last, 60_000);
  await socket.emitWithAck("terminal:write", { data: "\u0004stty echo\n" });
  const got = await until("the file", async () => {
    const { content } = await socket.emitWithAck("fetchContent", "burst.txt");
    return content?.length === want.length && content;
  });
  assert.equal(got, want);
});

test("requests about files are worked on in order, and the last of many saves is told to all", async () => {
  const [writer, watcher] = [connect(newest), connect(newest)];
  await watcher.emitWithAck("fetchDir");
  let refreshes = 0;
  watcher.on("file:refresh", () => (refreshes += 1));
  const answers = [];
  for (let n = 0; n < 200; n += 1) {
    writer.emit("updateContent", { path: "order.txt", content: String(n) });
    writer.emit("fetchContent", { path: "order.txt" }, (said) => answers.push(said.content));
  }
  await until("all answers", () => answers.length === 200);
  assert.deepEqual(
    answers,
    Array.from({ length: 200 }, (_, n) => String(n)),
  );
  await sleep(200);
  assert.ok(refreshes > 0 && refreshes < 200, `${refreshes} refreshes`);
});

/** A proxy whose connections can be cut at any byte. */
async function proxy(target) {
  const { hostname, port } = new URL(target);
  const pairs = new Set();
  const listener = net.createServer((near) => {
    const far = net.connect(port, hostname);
    const pair = [near, far];
    pairs.add(pair);
    const end = () => {
      near.destroy();
      far.destroy();
      pairs.delete(pair);
    };
    for (const side of pair) side.on("error", end).on("close", end);
    near.pipe(far);
    far.pipe(near);
  });
  await new Promise((resolve) => listener.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${listener.address().port}`,
    cut: () => [...pairs].forEach((pair) => pair.forEach((side) => side.destroy())),
    close: () => listener.close(),
  };
}

test("18 cuts in the middle of output are recovered at the byte", async () => {
  const between = await proxy(server.url);
  const socket = connect(newest, { transports: ["websocket"] }, between.url);
  await new Promise((resolve) => socket.once("connect", resolve));
  const id = socket.id;
  await socket.emitWithAck("terminal:write", {
    data: "for i in $(seq 200000); do echo line-$i; [ $((i % 500)) = 0 ] && sleep 0.02; done; echo END\n",
  });
  let recovered = 0;
  socket.on("connect", () => (recovered += socket.recovered ? 1 : 0));
  for (let cut = 0; cut < 18; cut += 1) {
    const seen = socket.out.length;
    await until("more output", () => socket.out.length > seen + 1000, 20_000);
    const before = recovered;
    between.cut();
    await until("the recovery", () => recovered > before, 20_000);
    assert.equal(socket.id, id);
  }
  await until("the end", () => /\r\nEND\r\n/.test(socket.out), 60_000);
  const body = socket.out.slice(socket.out.indexOf("line-1\r\n"), socket.out.lastIndexOf("\r\nEND\r\n"));
  const want = Array.from({ length: 200_000 }, (_, n) => `line-${n + 1}`).join("\r\n");
  assert.ok(body === want, "something is missing or doubled");
  assert.equal(recovered, 18);
  between.close();
});

test("events that were missed while away are sent when the client comes back", async () => {
  const between = await proxy(server.url);
  const away = connect(newest, { transports: ["websocket"], reconnectionDelay: 700 }, between.url);
  await away.emitWithAck("fetchDir");
  const refresh = [];
  away.on("file:refresh", (said) => refresh.push(said));
  const here = connect(newest);
  await here.emitWithAck("fetchDir");
  between.cut();
  await sleep(200);
  await here.emitWithAck("terminal:write", { data: "echo while-$((1+1))-away\n" });
  await until("the output here", () => here.out.includes("while-2-away"));
  await until("the client's return", () => away.connected && away.recovered);
  await until("the output there", () => away.out.includes("while-2-away"));
  assert.equal(away.out.split("while-2-away").length, 2, "once");
  between.close();
});

test("without recovery a new connection is repainted", async () => {
  const socket = connect(newest, { transports: ["websocket"] });
  await until("the replay", () => socket.out.startsWith("\u001bc"));
  const quiet = connect(newest, { transports: ["websocket"], auth: { replay: false } });
  await quiet.emitWithAck("fetchDir");
  assert.equal(quiet.out, "");
});

test("several terminals: opened, resized, renamed, replayed by offset, closed", async () => {
  const socket = connect(newest);
  const made = await socket.emitWithAck("terminal:open", {
    cols: 100,
    rows: 30,
    shell: "sh",
    env: { MINE: "yes" },
    cwd: "src",
  });
  let out = "";
  let offset = 0;
  socket.on("terminal:data", (said) => {
    if (said.id !== made.id) return;
    out += said.data;
    offset = said.offset;
  });
  await socket.emitWithAck("terminal:write", { id: made.id, data: "echo $MINE; pwd; stty size\n" });
  await until("the output", () => /yes\r\n.*\/src\r\n30 100\r\n/.test(out));
  // Two viewers: the terminal is as large as the window of the one who types.
  const other = connect(newest);
  let seen = "";
  other.on("terminal:data", (said) => said.id === made.id && (seen += said.data));
  const attached = await other.emitWithAck("terminal:attach", { id: made.id, cols: 80, rows: 50 });
  assert.deepEqual([attached.cols, attached.rows, attached.replay], [100, 30, "screen"]);
  await until("the replay", () => seen.includes("yes"));
  await other.emitWithAck("terminal:detach", { id: made.id });
  const back = await socket.emitWithAck("terminal:resize", { id: made.id, cols: 100, rows: 30 });
  assert.deepEqual([back.cols, back.rows], [100, 30]);
  // What was missed since an offset, exactly.
  const from = offset;
  await socket.emitWithAck("terminal:detach", { id: made.id });
  await other.emitWithAck("terminal:write", { id: made.id, data: "echo mis$((1))sed\n" });
  await sleep(200);
  const before = out;
  const again = await socket.emitWithAck("terminal:attach", { id: made.id, offset: from });
  assert.equal(again.replay, "bytes");
  await until("the missed bytes", () => out.slice(before.length).includes("mis1sed"));
  assert.ok(!out.slice(before.length).includes("\u001bc"));
  await socket.emitWithAck("terminal:rename", { id: made.id, title: "build" });
  const { terminals } = await socket.emitWithAck("terminal:list");
  assert.equal(terminals.find((t) => t.id === made.id).title, "build");
  const exit = new Promise((resolve) => socket.once("terminal:exit", resolve));
  await socket.emitWithAck("terminal:close", { id: made.id });
  assert.equal((await exit).id, made.id);
  assert.equal((await socket.emitWithAck("terminal:attach", { id: made.id })).code, "not_found");
});

test("a command in a terminal has a time limit, and its end is told", async () => {
  const socket = connect(newest);
  const exits = [];
  socket.on("terminal:exit", (said) => exits.push(said));
  const slow = await socket.emitWithAck("terminal:open", { command: "sleep 60 & sleep 60", timeout_s: 1 });
  const quick = await socket.emitWithAck("terminal:open", { command: "exit 7" });
  await until("both ends", () => exits.length === 2, 15_000);
  assert.deepEqual(
    exits.find((e) => e.id === quick.id),
    { id: quick.id, code: 7, timed_out: false },
  );
  assert.equal(exits.find((e) => e.id === slow.id).timed_out, true);
});
