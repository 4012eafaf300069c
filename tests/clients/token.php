<?php
// PHP without a library: prints tokens, one in each line: a name, a space, the token.

function encode(string $bytes): string
{
    return rtrim(strtr(base64_encode($bytes), '+/', '-_'), '=');
}

function token(array $claims, string $key): string
{
    $text = encode(json_encode(['typ' => 'JWT', 'alg' => 'HS256'])) . '.' . encode(json_encode($claims));
    return $text . '.' . encode(hash_hmac('sha256', $text, $key, true));
}

$key = $argv[1];
$topics = ['subscribe' => ['user/42'], 'publish' => ['in/*']];

echo 'right ', token(['sub' => '42', 'exp' => time() + 600] + $topics, $key), "\n";
echo 'right-fraction ', token(['exp' => microtime(true) + 600] + $topics, $key), "\n";
echo 'wrong-text ', token(['exp' => (string) (time() + 600)] + $topics, $key), "\n";
echo 'wrong-number ', token(['sub' => 42, 'exp' => time() + 600] + $topics, $key), "\n";
