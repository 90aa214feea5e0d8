// The npm package jose as a stranger: `make ISSUER AUDIENCE` prints its keys and tokens, good and forged; `judge` reads
// {keys, issuer, audience, tokens} and prints for each token null where it is good, else why not.

import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'
import { readFileSync } from 'node:fs'

const installed = createRequire(new URL('../../target/parts/node/', import.meta.url))
const jose = await import(pathToFileURL(installed.resolve('jose')))
const ALGORITHMS = ['HS256', 'RS256', 'ES256', 'EdDSA']
const text = new TextEncoder()

async function make(issuer, audience) {
  const keys = {}
  const jwks = []
  for (const alg of ALGORITHMS) {
    if (alg === 'HS256') {
      keys[alg] = text.encode('a secret of jose, which is long enough for HS256')
      jwks.push({ kty: 'oct', k: jose.base64url.encode(keys[alg]), kid: 'jose-HS256', alg, use: 'sig' })
    } else {
      const pair = await jose.generateKeyPair(alg, { extractable: true })
      keys[alg] = pair.privateKey
      keys[`${alg} public`] = pair.publicKey
      jwks.push({ ...(await jose.exportJWK(pair.publicKey)), kid: `jose-${alg}`, alg, use: 'sig' })
    }
  }
  const now = Math.floor(Date.now() / 1000)
  const claims = (changes = {}) => ({
    iss: issuer, aud: audience, sub: 'alice', iat: now, exp: now + 600, roles: ['ROLE_VIEWER'], ...changes,
  })
  const sign = (alg, header = {}, changes = {}, key = keys[alg]) =>
    new jose.SignJWT(claims(changes)).setProtectedHeader({ alg, kid: `jose-${alg}`, ...header }).sign(key)

  const accepted = {}
  for (const alg of ALGORITHMS) {
    accepted[alg] = await sign(alg)
    accepted[`${alg} without kid`] = await sign(alg, { kid: undefined })
    accepted[`${alg} as at+jwt`] = await sign(alg, { typ: 'at+jwt' })
  }
  const forged = []
  const forge = (name, token, reason) => forged.push({ name: `jose: ${name}`, token, reason })

  forge('unsecured', new jose.UnsecuredJWT(claims()).encode(), 'alg_not_allowed')
  for (const alg of ['RS256', 'ES256', 'EdDSA']) {
    const pem = text.encode(await jose.exportSPKI(keys[`${alg} public`]))
    const jwk = text.encode(JSON.stringify(await jose.exportJWK(keys[`${alg} public`])))
    for (const [form, secret] of [['PEM', pem], ['JWK', jwk]]) {
      forge(`HS256 under the ${form} of ${alg}`, await sign('HS256', { kid: `jose-${alg}` }, {}, secret), 'alg_not_allowed')
      forge(`HS256 under the ${form} of ${alg}, no kid`, await sign('HS256', { kid: undefined }, {}, secret), 'bad_signature')
    }
    const stranger = await jose.generateKeyPair(alg, { extractable: true })
    const embedded = await jose.exportJWK(stranger.publicKey)
    const token = await sign(alg, { jwk: embedded }, {}, stranger.privateKey)
    // What EmbeddedJWK is there for: jose itself verifies it.
    await jose.jwtVerify(token, jose.EmbeddedJWK)
    forge(`${alg} with its own key embedded`, token, 'malformed_token')
    forge(`${alg} of a stranger`, await sign(alg, {}, {}, stranger.privateKey), 'bad_signature')
    forge(`${alg} of a stranger with a kid of its own`, await sign(alg, { kid: 'mine' }, {}, stranger.privateKey), 'unknown_key')
  }
  for (const alg of ['HS384', 'HS512']) {
    forge(alg, await sign(alg, { kid: 'jose-HS256' }, {}, text.encode('a secret of jose, which is long enough for HS512 also, so it is')), 'alg_not_allowed')
  }
  for (const [alg, kid] of [['PS256', 'jose-RS256'], ['RS512', 'jose-RS256'], ['ES384', 'jose-ES256'], ['ES512', 'jose-ES256']]) {
    const pair = await jose.generateKeyPair(alg)
    forge(alg, await sign(alg, { kid }, {}, pair.privateKey), 'alg_not_allowed')
  }
  forge('Ed25519 as RFC 9864 names it', await sign('Ed25519', { kid: 'jose-EdDSA' }, {}, keys.EdDSA), 'alg_not_allowed')
  for (const alg of ALGORITHMS) {
    for (const header of [{ typ: 'dpop+jwt' }, { cty: 'JWT' }, { zip: 'DEF' }, { jku: 'https://evil.test' }, { x5u: 'https://evil.test' }]) {
      forge(`${alg} with ${JSON.stringify(header)}`, await sign(alg, header), 'malformed_token')
    }
    const unencoded = await new jose.CompactSign(text.encode(JSON.stringify(claims())))
      .setProtectedHeader({ alg, kid: `jose-${alg}`, crit: ['x'], x: 1 }).sign(keys[alg], { crit: { x: true } })
    forge(`${alg} with crit`, unencoded, 'malformed_token')
    const detached = await new jose.FlattenedSign(text.encode(JSON.stringify(claims())))
      .setProtectedHeader({ alg, kid: `jose-${alg}`, b64: false, crit: ['b64'] }).sign(keys[alg])
    forge(`${alg} with b64 false`, `${detached.protected}..${detached.signature}`, 'malformed_token')
    const general = await new jose.GeneralSign(text.encode(JSON.stringify(claims())))
      .addSignature(keys[alg]).setProtectedHeader({ alg, kid: `jose-${alg}` }).sign()
    forge(`${alg} in the general serialization`, JSON.stringify(general), 'malformed_token')
    const nested = await new jose.CompactSign(text.encode(await sign(alg)))
      .setProtectedHeader({ alg, kid: `jose-${alg}`, cty: 'JWT' }).sign(keys[alg])
    forge(`${alg} within ${alg}`, nested, 'malformed_token')
    forge(`${alg} expired`, await sign(alg, {}, { iat: now - 3000, exp: now - 60 }), 'expired')
    forge(`${alg} too early`, await sign(alg, {}, { nbf: now + 300 }), 'not_yet_valid')
    forge(`${alg} of another issuer`, await sign(alg, {}, { iss: `${issuer}/` }), 'wrong_issuer')
    forge(`${alg} for another audience`, await sign(alg, {}, { aud: ['x'] }), 'wrong_audience')
    forge(`${alg} without exp`, await sign(alg, {}, { exp: undefined }), 'malformed_token')
  }
  const secret = crypto.getRandomValues(new Uint8Array(32))
  const encrypt = (inner, alg, key, header = {}) =>
    new jose.CompactEncrypt(inner).setProtectedHeader({ alg, enc: 'A256GCM', ...header }).encrypt(key)
  const oaep = await jose.generateKeyPair('RSA-OAEP-256')
  const agreed = await jose.generateKeyPair('ECDH-ES')
  for (const [what, inner] of [['claims', text.encode(JSON.stringify(claims()))], ['a signed token', text.encode(await sign('RS256'))]]) {
    forge(`JWE by dir of ${what}`, await encrypt(inner, 'dir', secret, { cty: 'JWT' }), 'malformed_token')
    forge(`JWE by A256KW of ${what}`, await encrypt(inner, 'A256KW', secret), 'malformed_token')
    forge(`JWE by RSA-OAEP-256 of ${what}`, await encrypt(inner, 'RSA-OAEP-256', oaep.publicKey), 'malformed_token')
    forge(`JWE by ECDH-ES of ${what}`, await encrypt(inner, 'ECDH-ES', agreed.publicKey), 'malformed_token')
    forge(`JWE by PBES2 of ${what}`, await encrypt(inner, 'PBES2-HS256+A128KW', text.encode('password')), 'malformed_token')
  }
  return { keys: { keys: jwks }, accepted, forged }
}

async function judge({ keys, issuer, audience, tokens }) {
  const verdict = async (token) => {
    try {
      const header = jose.decodeProtectedHeader(token)
      // The key of that name, or without a name the only one of that algorithm.
      const member = 'kid' in header ? 'kid' : 'alg'
      const [jwk, ...others] = keys.keys.filter((key) => key[member] === header[member])
      if (others.length > 0) throw new Error('more than one key fits')
      const key = await jose.importJWK(jwk, jwk.alg)
      const options = { issuer, audience, algorithms: [jwk.alg], clockTolerance: 30, requiredClaims: ['exp', 'sub'] }
      await jose.jwtVerify(token, key, options)
      return null
    } catch (error) {
      return `${error.name}: ${error.message}`
    }
  }
  return Promise.all(tokens.map(verdict))
}

const [, , act, ...rest] = process.argv
const answer = act === 'make' ? await make(...rest) : await judge(JSON.parse(readFileSync(0, 'utf8')))
console.log(JSON.stringify(answer))
