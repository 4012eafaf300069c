# The gem `jwt`: prints tokens as a backend in Ruby makes them, one in each line: a name, a space, the token.

require 'jwt'

key = ARGV[0]
claims = { sub: '42', exp: Time.now.to_i + 600, subscribe: ['user/42'], publish: ['in/*'] }

puts "right #{JWT.encode(claims, key, 'HS256')}"
puts "right-typ #{JWT.encode(claims, key, 'HS256', { typ: 'JWT' })}"
puts "wrong-none #{JWT.encode(claims, nil, 'none')}"
puts "wrong-HS512 #{JWT.encode(claims, key, 'HS512')}"
