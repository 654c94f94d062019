// Figures of files and storage: trees, saves, watching, HTTP against nginx, S3 against the AWS
// command line (where VERSITYGW, nginx and aws are there).
import { execFileSync, spawn } from "node:child_process";
import { createWriteStream, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import WebSocket from "ws";

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const median = (all) => [...all].sort((a, b) => a - b)[Math.floor(all.length / 2)];
const home = mkdtempSync(join(process.env.BENCH_DIR ?? tmpdir(), "legwork-bench-"));
process.on("exit", () => rmSync(home, { recursive: true, force: true }));
const report = (figure, legwork, more, bound, unit) => console.log(JSON.stringify({ figure, legwork, ...more, bound, unit }));
const field = (pid, name) => Number(readFileSync(`/proc/${pid}/status`, "utf8").match(new RegExp(`${name}:\\s+(\\d+)`))[1]);

async function serve(workspace, env = {}) {
  const child = spawn(process.env.LEGWORK_BIN, ["serve", workspace, "--port", "0"], {
    env: { PATH: process.env.PATH, HOME: home, LEGWORK_LOG_LEVEL: "error", ...env },
    cwd: home,
    stdio: ["ignore", "pipe", "inherit"],
  });
  const address = await new Promise((resolve) => child.stdout.on("data", (d) => resolve(String(d).match(/http:\/\/(\S+)/)[1])));
  return { child, address, stop: () => child.kill("SIGKILL") };
}

/** Asks over one socket, and waits for the acknowledgement. */
async function client(address) {
  const socket = new WebSocket(`ws://${address}/ws?replay=0`, { perMessageDeflate: false });
  const waiting = new Map();
  const heard = [];
  let next = 1;
  socket.on("message", (data) => {
    const text = data.toString();
    const ack = text.match(/^\{"ack":(\d+),/);
    if (ack) waiting.get(Number(ack[1]))?.();
    else for (const [name, resolve] of heard) if (text.startsWith(`{"event":"${name}"`)) resolve();
  });
  await new Promise((resolve) => socket.on("open", resolve));
  return {
    ask: (event, data) =>
      new Promise((resolve) => {
        waiting.set(next, resolve);
        socket.send(JSON.stringify({ event, data, id: next++ }));
      }),
    event: (name) => new Promise((resolve) => heard.push([name, resolve])),
    close: () => socket.terminate(),
  };
}

function fill(root, files, perFolder) {
  for (let n = 0; n < files; n += 1) {
    const dir = join(root, `d${Math.floor(n / perFolder)}`);
    if (n % perFolder === 0) mkdirSync(dir, { recursive: true });
    writeFileSync(join(dir, `file-${n}.txt`), "x".repeat(100));
  }
}

async function trees() {
  const root = join(home, "tree");
  // 20,000 entries in all: the limit of a tree.
  fill(root, 19_800, 100);
  const server = await serve(root);
  const one = await client(server.address);
  const times = [];
  for (let n = 0; n < 15; n += 1) {
    const start = performance.now();
    await one.ask("fetchDir", {});
    times.push(performance.now() - start);
  }
  report("tree of 20,000 files, warm", Number(median(times).toFixed(1)), {}, "<= 60", "ms");
  one.close();
  server.stop();
  const small = join(home, "small");
  fill(small, 200, 20);
  const second = await serve(small);
  const two = await client(second.address);
  const saves = [];
  for (let n = 0; n < 40; n += 1) {
    await sleep(60);
    const refresh = two.event("file:refresh");
    const start = performance.now();
    void two.ask("updateContent", { path: "d0/file-0.txt", content: `text ${n}` });
    await refresh;
    saves.push(performance.now() - start);
  }
  report("save to refresh", Number(median(saves).toFixed(1)), {}, "<= 15", "ms");
  second.stop();
}

async function watching() {
  const root = join(home, "watched");
  fill(root, 50_000, 50);
  const server = await serve(root);
  const one = await client(server.address);
  await one.ask("watch", { files: true });
  await sleep(3000);
  const ticks = () => {
    const stat = readFileSync(`/proc/${server.child.pid}/stat`, "utf8");
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return Number(fields[11]) + Number(fields[12]);
  };
  const before = ticks();
  await sleep(10_000);
  report("watching 50,000 files, idle", (ticks() - before) / 10, {}, "<= 1", "% CPU");
  server.stop();
}

const curl = (...args) => Number(execFileSync("curl", ["-s", "-o", "/dev/null", "-w", "%{time_total}", ...args]).toString());

async function transfers() {
  const size = 1 << 30;
  const root = join(home, "http");
  mkdirSync(root);
  const big = join(root, "big");
  const out = createWriteStream(big);
  const block = Buffer.alloc(1 << 20, "0123456789abcdef");
  for (let n = 0; n < 1024; n += 1) if (!out.write(block)) await new Promise((resolve) => out.once("drain", resolve));
  await new Promise((resolve) => out.end(resolve));
  const server = await serve(root);
  const api = `http://${server.address}/api/files`;
  writeFileSync(
    join(home, "nginx.conf"),
    `daemon off; pid ${home}/nginx.pid; error_log ${home}/error.log; user root; worker_processes 2;
     events {} http { access_log off; sendfile off; client_max_body_size 0; client_body_temp_path ${home}/body;
     server { listen 127.0.0.1:18080; root ${root}; location / { dav_methods PUT; } } }`,
  );
  const nginx = spawn("nginx", ["-c", join(home, "nginx.conf")], { stdio: "ignore" });
  await sleep(700);
  const runs = { down: { legwork: [], nginx: [] }, up: { legwork: [], nginx: [] } };
  for (let n = 0; n < 3; n += 1) {
    runs.down.legwork.push(curl(`${api}/big`));
    runs.down.nginx.push(curl("http://127.0.0.1:18080/big"));
    runs.up.legwork.push(curl("-T", big, `${api}/up-legwork`));
    runs.up.nginx.push(curl("-T", big, "http://127.0.0.1:18080/up-nginx"));
  }
  const rate = (all) => Math.round(size / 1e6 / median(all));
  for (const [way, figure] of [["down", "download of 1 GB"], ["up", "upload of 1 GB"]]) {
    const [ours, theirs] = [rate(runs[way].legwork), rate(runs[way].nginx)];
    report(figure, ours, { nginx: theirs, ratio: Number((ours / theirs).toFixed(2)) }, ">= 0.8 x nginx", "MB/s");
  }
  report("peak RSS of these transfers", Math.round(field(server.child.pid, "VmHWM") / 1024), {}, "<= 32", "MiB");
  nginx.kill();
  server.stop();
}

async function s3() {
  const data = join(home, "s3");
  fill(join(data, "bucket/code/ID"), 10_000, 100);
  const gateway = spawn(process.env.VERSITYGW, ["--access", "key", "--secret", "secret-secret", "--port", "127.0.0.1:17070", "posix", data], {
    stdio: "ignore",
  });
  await sleep(1000);
  const env = {
    AWS_ACCESS_KEY_ID: "key",
    AWS_SECRET_ACCESS_KEY: "secret-secret",
    AWS_REGION: "us-east-1",
    AWS_ENDPOINT_URL: "http://127.0.0.1:17070",
  };
  const root = join(home, "loaded");
  mkdirSync(root);
  let start = performance.now();
  const server = await serve(root, { ...env, S3_URI: "s3://bucket/code/ID/" });
  while ((await fetch(`http://${server.address}/files`)).status !== 200) await sleep(20);
  const ours = (performance.now() - start) / 1000;
  server.stop();
  const other = join(home, "synced");
  start = performance.now();
  execFileSync("aws", ["--endpoint-url", env.AWS_ENDPOINT_URL, "s3", "sync", "--only-show-errors", "s3://bucket/code/ID/", other], {
    env: { ...process.env, ...env },
  });
  const theirs = (performance.now() - start) / 1000;
  gateway.kill();
  if (!existsSync(join(root, "d99/file-9999.txt")) || !statSync(join(other, "d99/file-9999.txt"))) throw new Error("incomplete");
  const [a, b] = [ours, theirs].map((s) => Number(s.toFixed(2)));
  report("S3 load of 10,000 small files", a, { "aws s3 sync": b, faster: Number((theirs / ours).toFixed(1)) }, ">= 2 x faster", "s");
}

await trees();
await watching();
if (existsSync("/usr/sbin/nginx")) await transfers();
else console.error("no nginx here: transfers are not measured");
if (process.env.VERSITYGW && existsSync(process.env.VERSITYGW)) await s3();
else console.error("VERSITYGW names no S3 server: loading is not measured");
process.exit(0);
