// The figures of the workspace server, side by side with a Node server of the original's
// design, and with ttyd where TTYD names its binary. Prints one line of JSON a figure.
import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import WebSocket from "ws";

const here = dirname(fileURLToPath(import.meta.url));
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const median = (all) => [...all].sort((a, b) => a - b)[Math.floor(all.length / 2)];
const home = mkdtempSync(join(tmpdir(), "legwork-bench-"));
process.on("exit", () => rmSync(home, { recursive: true, force: true }));

const freePort = () =>
  new Promise((resolve) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });

function report(figure, ours, peers, bound, unit) {
  console.log(JSON.stringify({ figure, legwork: ours, ...peers, bound, unit }));
}

/** Resident memory of one process, in KiB. */
const rss = (pid) => Number(readFileSync(`/proc/${pid}/status`, "utf8").match(/VmRSS:\s+(\d+)/)[1]);

/** What a process and its children of the same program share the memory of, in KiB. */
function pss(pid, name) {
  let total = 0;
  for (const entry of readdirSync("/proc").filter((e) => /^\d+$/.test(e))) {
    try {
      const stat = readFileSync(`/proc/${entry}/stat`, "utf8");
      const program = stat.slice(stat.indexOf("(") + 1, stat.lastIndexOf(")"));
      if (program !== name) continue;
      let at = entry;
      while (at !== "0" && at !== String(pid)) {
        const line = readFileSync(`/proc/${at}/stat`, "utf8");
        at = line.slice(line.lastIndexOf(")") + 2).split(" ")[1];
      }
      if (at !== String(pid)) continue;
      total += Number(readFileSync(`/proc/${entry}/smaps_rollup`, "utf8").match(/Pss:\s+(\d+)/)[1]);
    } catch {
      // It ended meanwhile.
    }
  }
  return total;
}

async function start(kind, workspace) {
  const port = await freePort();
  const env = { PATH: process.env.PATH, HOME: home, PS1: "$ ", WORKSPACE: workspace, PORT: String(port) };
  const command = {
    legwork: [process.env.LEGWORK_BIN, ["serve"], { ...env, MAX_CONNECTIONS: "2000", LEGWORK_LOG_LEVEL: "error" }],
    node: [process.execPath, [join(here, "peer.mjs")], env],
    ttyd: [process.env.TTYD, ["-W", "-i", "127.0.0.1", "-p", String(port), "/bin/bash"], env],
  }[kind];
  const child = spawn(command[0], command[1], { env: command[2], cwd: workspace === home ? "/" : home, stdio: "ignore" });
  for (;;) {
    const open = await fetch(`http://127.0.0.1:${port}/files`).catch(() => null);
    if (open) break;
    await sleep(20);
  }
  return { kind, port, child, stop: () => child.kill("SIGKILL") };
}

/** A terminal's client: the least that the protocol needs, the same for all. */
async function client(server) {
  const { kind, port } = server;
  const url =
    kind === "ttyd" ? `ws://127.0.0.1:${port}/ws` : `ws://127.0.0.1:${port}/socket.io/?EIO=4&transport=websocket`;
  const socket = new WebSocket(url, kind === "ttyd" ? ["tty"] : [], { perMessageDeflate: false });
  const self = { onText: () => {}, close: () => socket.terminate(), socket };
  if (kind === "ttyd") {
    socket.on("message", (data) => data[0] === 0x30 && self.onText(data.subarray(1).toString("latin1")));
    await new Promise((resolve, reject) => socket.on("open", resolve).on("error", reject));
    socket.send(JSON.stringify({ AuthToken: "", columns: 80, rows: 24 }));
    self.type = (text) => socket.send(`0${text}`);
  } else {
    await new Promise((resolve, reject) => {
      socket.on("error", reject);
      socket.on("message", (data) => {
        const text = data.toString();
        if (text === "2") socket.send("3");
        else if (text.startsWith("0")) socket.send("40");
        else if (text.startsWith("40")) resolve();
        else if (text.startsWith('42["terminal:data"')) self.onText(JSON.parse(text.slice(2))[1].data);
      });
    });
    self.type = (text) => socket.send(`42${JSON.stringify(["terminal:write", { data: text }])}`);
  }
  await sleep(300);
  self.until = (needle) =>
    new Promise((resolve) => {
      let tail = "";
      self.onText = (text) => {
        tail = (tail + text).slice(-Math.max(4096, needle.length * 2, text.length));
        if (tail.includes(needle)) {
          self.onText = () => {};
          resolve();
        }
      };
    });
  return self;
}

async function idle(server) {
  await sleep(1500);
  return rss(server.child.pid);
}

async function connections(server) {
  const before = rss(server.child.pid);
  const sockets = [];
  for (let n = 0; n < 1000; n += 50) {
    sockets.push(...(await Promise.all(Array.from({ length: 50 }, () => client(server)))));
  }
  await sleep(1500);
  const grown = rss(server.child.pid) - before;
  for (const socket of sockets) socket.close();
  return grown;
}

async function echo(server) {
  const terminal = await client(server);
  const times = [];
  for (let n = 0; n < 300; n += 1) {
    const heard = terminal.until("x");
    const start = process.hrtime.bigint();
    terminal.type("x");
    await heard;
    times.push(Number(process.hrtime.bigint() - start) / 1000);
    await sleep(15);
  }
  terminal.type("\u0015");
  terminal.close();
  return Math.round(median(times));
}

async function throughput(server, file) {
  const terminal = await client(server);
  const times = [];
  for (let n = 0; n < 3; n += 1) {
    const done = terminal.until(`DONE-${n}-2`);
    const start = performance.now();
    terminal.type(`cat ${file}; echo DONE-${n}-$((1+1))\n`);
    await done;
    times.push(performance.now() - start);
  }
  terminal.close();
  return Number((64 / (median(times) / 1000)).toFixed(1));
}

async function interrupt(server) {
  const terminal = await client(server);
  const times = [];
  terminal.type("PS1='READY''> '\n");
  await terminal.until("READY> ");
  for (let n = 0; n < 5; n += 1) {
    const flood = terminal.until("y\r\ny\r\n");
    terminal.type("yes\n");
    await flood;
    await sleep(700);
    const prompt = terminal.until("READY> ");
    const start = performance.now();
    terminal.type("\u0003");
    await prompt;
    times.push(performance.now() - start);
    await sleep(200);
  }
  terminal.close();
  return Number(Math.max(...times).toFixed(1));
}

const kinds = ["legwork", "node", ...(process.env.TTYD ? ["ttyd"] : [])];
const workspace = join(home, "workspace");
mkdirSync(workspace);
const big = join(home, "big.txt");
writeFileSync(big, `${"0123456789abcdef".repeat(4)}\n`.repeat((64 << 20) / 65));

async function compare(figure, bound, unit, measure) {
  const got = {};
  for (const kind of kinds) {
    const server = await start(kind, workspace);
    try {
      got[kind] = await measure(server);
    } finally {
      server.stop();
    }
  }
  const { legwork, ...peers } = got;
  const ratios = Object.fromEntries(
    Object.entries(peers).flatMap(([kind, value]) => [
      [kind, value],
      [`ratio_${kind}`, Number((legwork / value).toFixed(3))],
    ]),
  );
  report(figure, legwork, ratios, bound, unit);
}

/** Who comes when 100 MB have been shown: what is sent, and how soon. */
async function replay() {
  const server = await start("legwork", workspace);
  const terminal = await client(server);
  const done = terminal.until("DONE-2");
  terminal.type(`cat ${big}; tail -c 40000000 ${big}; echo DONE-$((1+1))\n`);
  await done;
  await sleep(300);
  const times = [];
  let most = 0;
  for (let n = 0; n < 10; n += 1) {
    const start = performance.now();
    const url = `ws://127.0.0.1:${server.port}/socket.io/?EIO=4&transport=websocket`;
    const socket = new WebSocket(url, { perMessageDeflate: false });
    const text = await new Promise((resolve) =>
      socket.on("message", (data) => {
        const text = data.toString();
        if (text.startsWith("0")) socket.send("40");
        else if (text.startsWith('42["terminal:data"')) resolve(JSON.parse(text.slice(2))[1].data);
      }),
    );
    times.push(performance.now() - start);
    most = Math.max(most, Buffer.byteLength(text));
    socket.terminate();
  }
  server.stop();
  report("replay with 100 MB behind it, worst of 10", Number(Math.max(...times).toFixed(1)), { bytes: most }, "<= 50, <= 65536 bytes", "ms");
}

/** A client that stops reading in a flood, while another reads on. */
async function stalled() {
  const server = await start("legwork", workspace);
  const terminal = await client(server);
  const other = await client(server);
  const flood = async () => {
    const done = terminal.until(`DONE-2`);
    terminal.type(`cat ${big}; echo DONE-$((1+1))\n`);
    const start = performance.now();
    await done;
    return performance.now() - start;
  };
  await flood();
  const before = rss(server.child.pid);
  const free = await flood();
  other.socket.pause();
  const held = await flood();
  report("a stalled reader: memory", rss(server.child.pid) - before, {}, "<= 8192", "KiB");
  report("a stalled reader: another's time", Number((held / free).toFixed(2)), {}, "", "x");
  server.stop();
}

const wanted = process.argv.slice(2);
const figures = {
  idle: () => compare("idle RSS", "<= 0.15 x node", "KiB", idle),
  connections: () => compare("RSS of 1,000 idle connections", "<= 0.4 x node", "KiB", connections),
  echo: () => compare("keystroke echo, median", "<= 0.4 x node, <= 1.1 x ttyd", "us", echo),
  throughput: () => compare("terminal throughput", ">= 1.0 x both", "MB/s", (s) => throughput(s, big)),
  interrupt: () => compare("^C to prompt under yes, worst of 5", "<= 100", "ms", interrupt),
  replay,
  stalled,
};
for (const [name, run] of Object.entries(figures)) if (!wanted.length || wanted.includes(name)) await run();
const server = await start("legwork", workspace);
await sleep(1500);
report("PSS of all of its processes, shell left out", pss(server.child.pid, "legwork"), {}, "", "KiB");
server.stop();
process.exit(0);
