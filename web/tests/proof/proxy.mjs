// The proxy samples of docs/workspace.md in a real Caddy and a real nginx, and what a preview costs beside nginx itself: part of
// `make proof`, on a machine that does nothing else.
import { execFileSync, spawn } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { Agent, createServer, get } from "node:http";
import { createServer as net } from "node:net";
import { join } from "node:path";
import { launch, opened, prompt, terminalText } from "../lib/page.mjs";
import { serve, until } from "../lib/serve.mjs";

const free = () =>
  new Promise((resolve) => {
    const listener = net().listen(0, "127.0.0.1", () => {
      const { port } = listener.address();
      listener.close(() => resolve(port));
    });
  });

const [own, front, plain, app] = [await free(), await free(), await free(), await free()];
const big = Buffer.alloc(1 << 20, "x");
const application = createServer((request, response) => {
  if (request.url === "/big") {
    response.writeHead(200, { "content-length": 256 * big.length });
    let left = 256;
    const more = () => {
      while (left > 0) {
        left -= 1;
        if (!response.write(big)) return response.once("drain", more);
      }
      response.end();
    };
    return more();
  }
  response.writeHead(200, { "content-type": "text/html" }).end("<!doctype html><h1>application</h1>");
});
await new Promise((resolve) => application.listen(app, "127.0.0.1", resolve));

const server = await serve(
  { "a.txt": "one\n" },
  {
    HOST: "127.0.0.1",
    LEGWORK_WORKSPACE_TOKEN: "secret",
    ALLOWED_ORIGINS: `http://ide.example.com:${front}`,
    PREVIEW_HOST: `{port}--ide.example.com:${front}`,
    USER_PORT: String(app),
  },
  (command) => [...command.slice(0, -1), String(own)],
);

// The samples are those that are read by people.
const docs = readFileSync(join(import.meta.dirname, "../../../docs/workspace.md"), "utf8");
const sampled = (line) => line.exec(docs)[0].replace("127.0.0.1:3001", `127.0.0.1:${own}`);
const sample = sampled(/^location \/ \{ proxy_pass.*\}$/m);
const { home } = server;
const conf = (extra) => `daemon off; pid ${home}/nginx.pid; error_log ${home}/nginx.log; worker_processes 1;
events { worker_connections 512; }
http { access_log off; client_body_temp_path ${home}/body; proxy_temp_path ${home}/proxy;
  map $http_upgrade $connection_upgrade { default upgrade; '' close; }
  ${extra} }`;
writeFileSync(
  join(home, "nginx.conf"),
  conf(`server { listen 127.0.0.1:${front}; server_name *.example.com; ${sample} }
  upstream app { server 127.0.0.1:${app}; keepalive 16; }
  server { listen 127.0.0.1:${plain}; location / { proxy_pass http://app; proxy_http_version 1.1; proxy_buffering off; proxy_set_header Connection ""; } }`),
);
const caddyfile = sampled(/^\*\.example\.com \{ reverse_proxy.*\}$/m).replace("*", "http://*");
writeFileSync(
  join(home, "Caddyfile"),
  `{\n  admin off\n  auto_https off\n  http_port ${front}\n}\n${caddyfile.replace(/ \{ (.*) \}/, " {\n  bind 127.0.0.1\n  $1\n}")}\n`,
);
let failed = 0;
const report = (what, good, figure) => {
  if (!good) failed += 1;
  console.log(`${good ? "  " : "✗ "}${what}: ${figure}`);
};

/** The page, its terminal and a preview by name, behind a proxy that listens at `front`. */
const behind = async (name) => {
  const browser = await launch(["ide.example.com", `${app}--ide.example.com`]);
  const address = `http://ide.example.com:${front}/#token=secret`;
  const { page, close } = await until(name, () => opened(browser, address).catch(() => null));
  await prompt(page);
  await page.keyboard.type("echo through-$((1+1))\n");
  await until("the terminal", async () => (await terminalText(page)).includes("through-2"));
  await page.getByRole("button", { name: "Preview", exact: true }).first().click();
  await page.frameLocator("iframe").getByRole("heading", { name: "application" }).waitFor();
  report(`the sample for ${name}`, true, "the page, its terminal and a preview by name work behind it");
  await close();
  await browser.close();
};

const caddy = spawn("caddy", ["run", "--config", join(home, "Caddyfile")], {
  stdio: "ignore",
  env: { ...process.env, HOME: home, XDG_DATA_HOME: home, XDG_CONFIG_HOME: home },
});
await behind("Caddy");
await new Promise((resolve) => caddy.once("exit", resolve).kill());
const nginx = spawn("nginx", ["-c", join(home, "nginx.conf")], { stdio: "ignore" });
await behind("nginx");

// The cost of a preview: the same application behind nginx, and behind us.
const place = await (
  await fetch(`http://127.0.0.1:${own}/api/preview?port=${app}`, {
    headers: { authorization: "Bearer secret" },
  })
).json();
const ours = `http://127.0.0.1:${own}${place.url}`;
const agent = new Agent({ keepAlive: true, maxSockets: 1 });
const once = (url) =>
  new Promise((resolve, reject) => {
    const start = performance.now();
    get(url, { agent }, (response) => {
      response.resume().on("end", () => resolve(performance.now() - start));
    }).on("error", reject);
  });
const median = (times) => times.sort((a, b) => a - b)[times.length >> 1];
const latency = async (url) => {
  for (let n = 0; n < 200; n += 1) await once(url);
  const times = [];
  for (let n = 0; n < 1000; n += 1) times.push(await once(url));
  return median(times);
};
const direct = await latency(`http://127.0.0.1:${app}/`);
const added = (await latency(ours)) - direct;
report("a preview adds", added <= 1, `${added.toFixed(2)} ms to ${direct.toFixed(2)}, budget 1`);
const rate = (url) =>
  Number(execFileSync("curl", ["-s", "-o", "/dev/null", "-w", "%{speed_download}", url]).toString()) / 1e6;
const rates = { ours: [], nginx: [] };
for (let n = 0; n < 3; n += 1) {
  rates.ours.push(rate(`${ours}big`));
  rates.nginx.push(rate(`http://127.0.0.1:${plain}/big`));
}
const ratio = median(rates.ours) / median(rates.nginx);
report(
  "throughput of a preview",
  ratio >= 0.8,
  `${Math.round(median(rates.ours))} MB/s, nginx ${Math.round(median(rates.nginx))}: ${ratio.toFixed(2)} x, budget 0.8 x`,
);
application.close();
nginx.kill();
await server.stop();
process.exit(failed ? 1 : 0);
