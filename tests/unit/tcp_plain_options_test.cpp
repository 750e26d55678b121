#include "stack/tcp/plain_options.h"

#include <gtest/gtest.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

namespace ustack::tcp {
namespace {

TEST(TcpPlainOptions, SwitchesKeepApart) {
  PlainOptions options;
  EXPECT_EQ(*options.get(IPPROTO_IP, IP_MULTICAST_LOOP), 1);
  EXPECT_FALSE(options.free_bind());
  EXPECT_TRUE(options.set(IPPROTO_IP, IP_FREEBIND, 7, 4).ok());
  EXPECT_TRUE(options.free_bind());
  EXPECT_FALSE(options.tells_unread());
  EXPECT_EQ(*options.get(IPPROTO_IP, IP_FREEBIND), 1);
  EXPECT_TRUE(options.set(IPPROTO_IP, IP_FREEBIND, 0, 1).ok());
  EXPECT_FALSE(options.free_bind());
  EXPECT_EQ(*options.get(IPPROTO_IP, IP_MULTICAST_LOOP), 1);
}

TEST(TcpPlainOptions, BoundsAndRefusals) {
  PlainOptions options;
  EXPECT_EQ(options.set(IPPROTO_IP, IP_MINTTL, 256, 4).code(), EINVAL);
  EXPECT_TRUE(options.set(IPPROTO_IP, IP_MINTTL, 255, 4).ok());
  EXPECT_EQ(options.min_ttl, 255);
  EXPECT_EQ(options.set(IPPROTO_TCP, TCP_INQ, 2, 4).code(), EINVAL);
  EXPECT_EQ(options.set(SOL_SOCKET, SO_PASSCRED, 0, 4).code(), EOPNOTSUPP);
  EXPECT_TRUE(options.set(SOL_SOCKET, SO_LOCK_FILTER, 0, 4).ok());
  EXPECT_EQ(options.set(SOL_SOCKET, SO_LOCK_FILTER, 1, 4).code(), ENOPROTOOPT) << "never taken in vain";
  EXPECT_EQ(options.set(SOL_SOCKET, 9999, 1, 4).code(), ENOPROTOOPT);
  EXPECT_EQ(options.get(SOL_SOCKET, 9999).code(), ENOPROTOOPT);
}

TEST(TcpPlainOptions, ValueThatMeansTheDefault) {
  constexpr int kTxRehash = 74;
  PlainOptions options;
  EXPECT_EQ(*options.get(SOL_SOCKET, kTxRehash), 1);
  EXPECT_TRUE(options.set(SOL_SOCKET, kTxRehash, 0, 4).ok());
  EXPECT_EQ(*options.get(SOL_SOCKET, kTxRehash), 0);
  EXPECT_TRUE(options.set(SOL_SOCKET, kTxRehash, -1, 4).ok());
  EXPECT_EQ(*options.get(SOL_SOCKET, kTxRehash), 1);
}

}  // namespace
}  // namespace ustack::tcp
