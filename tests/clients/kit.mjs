// What the drivers share: each prints what its client dispatches, one JSON array a line.
export const url = process.argv[2];

// An EventSource dispatches an event to those that listen for its name.
export const names = ['message', 'system', 'recovery', 'greeting', 'heartbeat'];

export function print(name, data, id) {
  process.stdout.write(JSON.stringify([name, data, id]) + '\n');
}
