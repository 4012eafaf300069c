// TypeScript checks in strict mode that the JSDoc types of the client and the hook agree with their code.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { test } from 'node:test';

test('tsc reports no error', () => {
  const here = fileURLToPath(new URL('.', import.meta.url));
  const tsc = `${here}node_modules/.bin/tsc`;
  const run = spawnSync(tsc, ['--noEmit', '-p', here], { encoding: 'utf8' });
  assert.ifError(run.error);
  assert.equal(run.stdout + run.stderr, '');
  assert.equal(run.status, 0);
});
