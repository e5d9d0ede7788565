// The demo's board in a real browser: windows on every node, one of them a telephone's; a node is killed by its button.
// Called by tests/demo.rs with the clients' addresses of three nodes. Screenshots go to SKEIN_SHOTS, to be looked at.
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';

const { chromium } = await import(process.env.SKEIN_PLAYWRIGHT);
const clients = process.argv.slice(2);
const shots = process.env.SKEIN_SHOTS ?? '/tmp';
const executablePath = [process.env.SKEIN_CHROMIUM, '/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome']
  .find(path => path && existsSync(path));
assert.ok(executablePath, 'there is no Chromium: name one in SKEIN_CHROMIUM');

const browser = await chromium.launch({
  executablePath,
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
});
const faults = [];
const views = [{ width: 1280, height: 860 }, { width: 1280, height: 860 }, { width: 375, height: 780 }];

async function open(client, viewport) {
  const page = await (await browser.newContext({ viewport })).newPage();
  page.on('pageerror', error => faults.push(error.message));
  // Refused connections are what a killed node looks like; anything else that the page asks for is a fault.
  page.on('request', request => { if (!clients.some(c => request.url().startsWith(`http://${c}/`)) && !request.url().startsWith('data:')) faults.push(request.url()); });
  page.on('console', line => { if (line.type() === 'error' && !line.text().includes('net::ERR_')) faults.push(line.text()); });
  await page.goto(`http://${client}/`);
  await page.waitForSelector('body[data-state=connected]');
  return page;
}

const pieces = page => page.$$eval('#pieces li:not(.gone)', list => Object.fromEntries(list.map(one => [one.dataset.id, one.dataset.node])));
const mine = page => page.$eval('#pieces li.mine', one => one.dataset.id);
const place = (page, id) => page.$eval(`#pieces li[data-id="${id}"]`, one => one.style.transform);
// Playwright's waits give up after 30 s by themselves.
const until = (page, test, argument) => page.waitForFunction(test, argument);
const sees = (page, id, node) => until(page, ([id, node]) => document.querySelector(`#pieces li[data-id="${id}"]`)?.dataset.node === node, [id, node]);

const pages = [];
for (const [i, client] of clients.entries()) pages.push(await open(client, views[i]));
const ids = await Promise.all(pages.map(mine));

// Everybody sees everybody, the first one the last one and the late one the early ones.
for (const page of pages) for (const [i, id] of ids.entries()) await sees(page, id, `n${i + 1}`);

// A piece is moved by hand here and moves there; by keys too.
const before = await place(pages[2], ids[1]);
const board = await pages[1].locator('#board').boundingBox();
await pages[1].mouse.move(board.x + 400, board.y + 150);
await pages[1].mouse.down();
await pages[1].mouse.move(board.x + 600, board.y + 250, { steps: 20 });
await pages[1].mouse.up();
await until(pages[2], ([id, before]) => document.querySelector(`#pieces li[data-id="${id}"]`).style.transform !== before, [ids[1], before]);
const rested = await place(pages[1], ids[0]);
await pages[0].focus('#board');
await pages[0].keyboard.press('ArrowDown');
await until(pages[1], ([id, rested]) => document.querySelector(`#pieces li[data-id="${id}"]`).style.transform !== rested, [ids[0], rested]);

// Nothing is wider than a telephone.
assert.equal(await pages[2].evaluate(() => document.documentElement.scrollWidth), 375);
for (const [i, page] of pages.entries()) await page.screenshot({ path: `${shots}/board-${i + 1}.png`, fullPage: true });

// The second window kills its node and goes on elsewhere; all windows see it there, and nobody else moved.
await pages[1].getByRole('button', { name: 'Kill n2' }).click();
await until(pages[1], () => document.querySelector('#pieces li.mine').dataset.node.match(/^n[13]$/));
const refuge = (await pieces(pages[1]))[ids[1]];
for (const page of pages) await sees(page, ids[1], refuge);
await sees(pages[2], ids[0], 'n1');
await until(pages[0], () => [...document.querySelectorAll('#nodes label')].some(label => label.classList.contains('dead') && label.textContent.startsWith('n2')));
const there = await place(pages[0], ids[1]);
await pages[1].mouse.move(board.x + 300, board.y + 300);
await pages[1].mouse.down();
await pages[1].mouse.move(board.x + 500, board.y + 200, { steps: 20 });
await pages[1].mouse.up();
await until(pages[0], ([id, there]) => document.querySelector(`#pieces li[data-id="${id}"]`).style.transform !== there, [ids[1], there]);

// Somebody who comes now learns where the others are, and chooses another node by hand.
const late = await open(clients[0], views[0]);
for (const id of ids) await until(late, id => document.querySelector(`#pieces li[data-id="${id}"]`), id);
await late.getByRole('radio', { name: /^n3,/ }).check({ force: true });
await sees(pages[0], await mine(late), 'n3');
for (const [i, page] of [...pages, late].entries()) await page.screenshot({ path: `${shots}/board-after-${i + 1}.png`, fullPage: true });

// Who leaves is gone at once.
const gone = await mine(late);
await late.close();
await until(pages[0], id => !document.querySelector(`#pieces li[data-id="${id}"]:not(.gone)`), gone);

assert.deepEqual(faults, []);
await browser.close();
