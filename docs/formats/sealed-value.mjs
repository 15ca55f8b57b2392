// Makes the test vectors of sealed values from the description alone, with nothing of ours, and compares them with
// those published. `node docs/formats/sealed-value.mjs`; with `--write`, writes them.
import { createCipheriv, createHash, hkdfSync } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";

const file = new URL("./sealed-value-vectors.json", import.meta.url);
const hex = (bytes) => Buffer.from(bytes).toString("hex");
const range = (from) => Buffer.from(Array.from({ length: 32 }, (_, i) => (from + i) % 256));
const number = (value, bytes) => {
  const out = Buffer.alloc(bytes);
  bytes === 8 ? out.writeBigUInt64BE(BigInt(value)) : bytes === 4 ? out.writeUInt32BE(value) : out.writeUInt8(value);
  return out;
};
const fields = (...list) =>
  Buffer.concat(list.flatMap((field) => {
    const bytes = Buffer.from(field);
    return [number(bytes.length, 4), bytes];
  }));
const hkdf = (key, salt, info, length = 32) => Buffer.from(hkdfSync("sha256", key, salt, info, length));

function seal(format, key, salt, context, plaintext) {
  const label = (what) => `cofferdam/sealed-value/v${format}/${what}`;
  const nonce = format === 1 ? Buffer.alloc(12) : hkdf(key, salt, label("nonce"), 12);
  const cipher = createCipheriv("aes-256-gcm", hkdf(key, salt, label("key")), nonce).setAAD(context);
  const ciphertext = Buffer.concat([cipher.update(plaintext), cipher.final(), cipher.getAuthTag()]);
  return Buffer.concat([salt, hkdf(key, salt, label("commit")), ciphertext]);
}
const keyId = (key) => hkdf(key, Buffer.alloc(0), "cofferdam/key-id/v2");

const [tenant, func] = ["t_acme000000000000", "t_acme000000000000.f_cart000000000000"];
const [name, version, value] = ["API_TOKEN", 7, "correct horse battery staple"];
const root = range(0x00);
const place = [tenant, func, name, number(version, 8)];

function first() {
  const tenantKey = range(0x20);
  const wrapContext = fields("cofferdam/tenant-key", [1], tenant, number(1, 4), number(1, 4));
  const context = fields("cofferdam/secret", [1], ...place, number(1, 4));
  const head = Buffer.concat([[1], number(1, 4)].map((part) => Buffer.from(part)));
  return {
    tenant_key: hex(tenantKey),
    tenant_key_context: hex(wrapContext),
    wrapped_tenant_key: hex(Buffer.concat([head, seal(1, root, range(0x40), wrapContext, tenantKey)])),
    value_context: hex(context),
    sealed_value: hex(Buffer.concat([head, seal(1, tenantKey, range(0x60), context, value)])),
  };
}

function tenantKey(keyVersion, key, salt) {
  const rootName = `local:${hex(keyId(root)).slice(0, 16)}`;
  const context = fields("cofferdam/tenant-key", [2], tenant, number(keyVersion, 4), keyId(key), rootName);
  const length = Buffer.alloc(2);
  length.writeUInt16BE(rootName.length);
  const bytes = Buffer.concat([Buffer.from([2]), length, Buffer.from(rootName), keyId(key),
    seal(2, root, salt, context, key)]);
  return { key: hex(key), id: hex(keyId(key)), context: hex(context), wrapped: hex(bytes) };
}

function sealed(keyVersion, key, dataKey, wrapSalt, valueSalt) {
  const wrapContext = fields("cofferdam/data-key", [2], "cofferdam/secret", ...place, number(keyVersion, 4), keyId(key));
  const context = fields("cofferdam/secret", [2], ...place, keyId(dataKey));
  const bytes = Buffer.concat([Buffer.from([2]), number(keyVersion, 4),
    seal(2, key, wrapSalt, wrapContext, dataKey), seal(2, dataKey, valueSalt, context, value)]);
  return { data_key: hex(dataKey), data_key_context: hex(wrapContext), value_context: hex(context), sealed_value: hex(bytes) };
}

function second() {
  const [one, two, dataKey] = [range(0x20), range(0xc0), range(0x60)];
  return {
    tenant_keys: [tenantKey(1, one, range(0x40)), tenantKey(2, two, range(0xe0))],
    under_first: sealed(1, one, dataKey, range(0x80), range(0xa0)),
    rewrapped_under_second: sealed(2, two, dataKey, range(0x10), range(0xa0)),
  };
}

const vectors = {
  about: "Every byte string is hex. Made by sealed-value.mjs from sealed-value.md, not with Cofferdam's code.",
  root_key: hex(root), root_key_id: hex(keyId(root)),
  tenant, function: func, name, version, value, value_sha256: createHash("sha256").update(value).digest("hex"),
  format_1: first(), format_2: second(),
};
const text = JSON.stringify(vectors, null, 2) + "\n";
if (process.argv.includes("--write")) writeFileSync(file, text);
if (readFileSync(file, "utf8") !== text) {
  console.error("sealed-value-vectors.json is not what the description gives");
  process.exit(1);
}
console.log("the published vectors are what the description gives");
