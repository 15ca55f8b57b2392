// Example function in JavaScript: the fetch event of StarlingMonkey, answering who the gateway says is calling.
// Must never put a secret in the answer or the log: only the first 16 digits of its digest.
import { getEnvironment } from 'wasi:cli/environment@0.2.10';

addEventListener('fetch', (event) => event.respondWith(answer(event.request)));

async function answer(request) {
  // Read per call: whatever runs at the top level ran once, when the component was built.
  const env = new Map(getEnvironment());
  const { pathname, search } = new URL(request.url);
  const told = (name) => request.headers.get(`x-cofferdam-${name}`);
  const secret = env.get('API_SECRET');
  console.log(`hello-js: ${request.method} ${pathname}${search}`);
  return Response.json({
    method: request.method,
    path: pathname + search,
    principal: told('principal'),
    tenant: told('tenant'),
    request_id: told('request-id'),
    greeting: env.get('GREETING') ?? null,
    secret_sha256: secret === undefined ? null : await fingerprint(secret),
  });
}

async function fingerprint(secret) {
  const digest = await crypto.subtle.digest('SHA-256', new TextEncoder().encode(secret));
  return [...new Uint8Array(digest).slice(0, 8)].map((byte) => byte.toString(16).padStart(2, '0')).join('');
}
