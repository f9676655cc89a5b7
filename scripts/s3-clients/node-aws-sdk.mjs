// AWS's SDK for JavaScript, version 3. Path style has to be said.
// needs: npm @aws-sdk/client-s3
// needs: npm @aws-sdk/lib-storage
import assert from 'node:assert';
import { createReadStream, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { refused, step, stored, FORBIDDEN, TAKEN } from './lib/steps.mjs';

// The packages are not beside this file.
const require = createRequire(`${process.env.TOOLS}/`);
const s3 = require('@aws-sdk/client-s3');
const { Upload } = require('@aws-sdk/lib-storage');

const { S3_ENDPOINT: endpoint, BUCKET: Bucket, WORK: work } = process.env;
const connect = credentials => new s3.S3Client({ endpoint, region: 'us-east-1', forcePathStyle: true, maxAttempts: 1, ...credentials });
const client = connect({}); // credentials from the environment
const wrong = connect({ credentials: { accessKeyId: 's4', secretAccessKey: 'wrong' } });
const small = readFileSync(`${work}/small`);
const bytes = async answer => Buffer.from(await answer.Body.transformToByteArray());

await step('put', async () => {
    await client.send(new s3.PutObjectCommand({ Bucket, Key: 'a/small', Body: small, ContentType: 'text/csv', Metadata: { origin: 'here' } }));
    stored('a/small', `${work}/small`);
});
await step('get', async () => {
    const answer = await client.send(new s3.GetObjectCommand({ Bucket, Key: 'a/small' }));
    assert.deepEqual(await bytes(answer), small);
    assert.deepEqual([answer.ContentType, answer.Metadata], ['text/csv', { origin: 'here' }]);
});
await step('list', async () => {
    const keys = [];
    for await (const page of s3.paginateListObjectsV2({ client }, { Bucket })) keys.push(...page.Contents.map(entry => entry.Key));
    assert.deepEqual(keys, ['a/small']);
});
await step('range', async () => {
    const answer = await client.send(new s3.GetObjectCommand({ Bucket, Key: 'a/small', Range: 'bytes=5-14' }));
    assert.deepEqual(await bytes(answer), small.subarray(5, 15));
});
await step('parts', async () => {
    const Body = createReadStream(`${work}/large`);
    await new Upload({ client, params: { Bucket, Key: 'a/large', Body }, partSize: 5 << 20 }).done();
    stored('a/large', `${work}/large`);
});
await step('copy', async () => {
    await client.send(new s3.CopyObjectCommand({ Bucket, Key: 'b/small', CopySource: `${Bucket}/a/small` }));
    stored('b/small', `${work}/small`);
});
await step('again', () => client.send(new s3.PutObjectCommand({ Bucket, Key: 'a/small', Body: small, ContentType: 'text/csv', Metadata: { origin: 'here' } })));
await refused('overwrite', TAKEN, () => client.send(new s3.PutObjectCommand({ Bucket, Key: 'a/small', Body: 'other' })));
await refused('wrong_secret', FORBIDDEN, () => wrong.send(new s3.GetObjectCommand({ Bucket, Key: 'a/small' })));
await step('delete', async () => {
    await client.send(new s3.DeleteObjectCommand({ Bucket, Key: 'a/small' }));
    await assert.rejects(client.send(new s3.HeadObjectCommand({ Bucket, Key: 'a/small' })), { name: 'NotFound' });
});
await step('delete_all', async () => {
    const { Contents } = await client.send(new s3.ListObjectsV2Command({ Bucket }));
    const { Deleted } = await client.send(new s3.DeleteObjectsCommand({ Bucket, Delete: { Objects: Contents.map(({ Key }) => ({ Key })) } }));
    assert.equal(Deleted.length, 2);
    assert.equal((await client.send(new s3.ListObjectsV2Command({ Bucket }))).KeyCount, 0);
});
