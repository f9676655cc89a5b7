// What the JavaScript scripts of scripts/s3-clients share: one line of output for each operation.
import { execFileSync } from 'node:child_process';

// What clients make of the answers 412 and 403.
export const TAKEN = /PreconditionFailed|412/;
export const FORBIDDEN = /SignatureDoesNotMatch|Forbidden|AccessDenied|403/;

const line = (operation, result, detail = '') => console.log([operation, result, String(detail).replace(/\s+/g, ' ').slice(0, 300)].join('\t'));

/** The operation must succeed. */
export async function step(operation, work) {
    try {
        await work();
        line(operation, 'ok');
    } catch (error) {
        line(operation, 'FAIL', error);
    }
}

/** The operation must fail with an error that matches `words`, which is shown. */
export async function refused(operation, words, work) {
    try {
        await work();
        line(operation, 'FAIL', 'it was not refused');
    } catch (error) {
        line(operation, words.test(error) ? 'ok' : 'FAIL', error);
    }
}

/** The cluster itself has the bytes of `file` under the key. */
export function stored(key, file) {
    if (process.env.S4_CONF_PATH) execFileSync('bash', ['-c', 's4 cp "$0" - | cmp - "$1"', `s4://${process.env.BUCKET}/${key}`, file]);
}
