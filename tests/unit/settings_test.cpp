#include "stack/settings.h"

#include <gtest/gtest.h>

#include <string>

namespace ustack {
namespace {

TEST(Settings, DefaultsAreLinuxs) {
  Settings settings;
  EXPECT_EQ(settings.tcp_syn_retries, 6);
  EXPECT_EQ(settings.tcp_rmem, (std::array<int32_t, 3>{4096, 131072, 33554432}));
}

TEST(Settings, SetsANumberAndToleratesWhiteSpace) {
  Settings settings;
  EXPECT_TRUE(settings.set("net.ipv4.tcp_syn_retries", "3").ok());
  EXPECT_EQ(settings.tcp_syn_retries, 3);
  EXPECT_TRUE(settings.set("net.ipv4.tcp_syn_retries", "  4\t").ok());
  EXPECT_EQ(settings.tcp_syn_retries, 4);
}

TEST(Settings, SetsTriplesAndPairs) {
  Settings settings;
  EXPECT_TRUE(settings.set("net.ipv4.tcp_rmem", "4096 65536\t8388608").ok());
  EXPECT_TRUE(settings.set("net.ipv4.tcp_congestion_control", " reno\n").ok());
  EXPECT_EQ(settings.tcp_congestion_control, "reno");
  EXPECT_EQ(settings.tcp_rmem, (std::array<int32_t, 3>{4096, 65536, 8388608}));
  EXPECT_TRUE(settings.set("net.ipv4.tcp_wmem", "1 2 3").ok());
  EXPECT_EQ(settings.tcp_wmem, (std::array<int32_t, 3>{1, 2, 3}));
  EXPECT_TRUE(settings.set("net.ipv4.ip_local_port_range", "40000 40000").ok());
  EXPECT_EQ(settings.ip_local_port_range, (std::array<int32_t, 2>{40000, 40000}));
}

TEST(Settings, RejectsWhatIsNotANumber) {
  for (const char* bad : {"", " ", "x", "1x", "1 2", "-", "+", "0x10", "99999999999999999999", "1.5"}) {
    Settings settings;
    EXPECT_EQ(settings.set("net.ipv4.tcp_syn_retries", bad).code(), EINVAL) << '"' << bad << '"';
    EXPECT_EQ(settings.tcp_syn_retries, 6);
  }
}

TEST(Settings, RejectsWhatIsOutOfBounds) {
  Settings settings;
  EXPECT_EQ(settings.set("net.ipv4.tcp_syn_retries", "0").code(), EINVAL);
  EXPECT_EQ(settings.set("net.ipv4.tcp_syn_retries", "128").code(), EINVAL);
  EXPECT_EQ(settings.set("net.ipv4.tcp_syn_retries", "-1").code(), EINVAL);
  EXPECT_EQ(settings.set("net.ipv4.ip_local_port_range", "0 10").code(), EINVAL);
  EXPECT_EQ(settings.set("net.ipv4.ip_local_port_range", "10 65536").code(), EINVAL);
  EXPECT_EQ(settings.set("net.ipv4.ip_local_port_range", "5 4").code(), EINVAL);
  EXPECT_EQ(settings.set("net.ipv4.tcp_rmem", "4096 131072").code(), EINVAL);
  EXPECT_EQ(settings.set("net.ipv4.tcp_congestion_control", "vegas").code(), EINVAL);
  EXPECT_EQ(settings.set("net.ipv4.tcp_congestion_control", "").code(), EINVAL);
  EXPECT_EQ(settings.tcp_congestion_control, "cubic");
  EXPECT_EQ(settings.set("net.ipv4.tcp_rmem", "1 2 3 4").code(), EINVAL);
  EXPECT_EQ(settings.set("net.ipv4.tcp_rmem", "3 2 1").code(), EINVAL);
  EXPECT_EQ(settings.tcp_rmem, Settings().tcp_rmem);
}

TEST(Settings, UnknownNamesAreErrors) {
  Settings settings;
  for (const char* name : {"", "tcp_syn_retries", "net.ipv4.tcp_syn_retries ", "net.ipv4.no_such"})
    EXPECT_EQ(settings.set(name, "1").code(), ENOENT) << name;
}

TEST(Settings, EveryRowTakesItsBoundsAndItsDefault) {
#define USTACK_TEST_ROW(field, name, value, lowest, highest)                       \
  {                                                                                \
    Settings settings;                                                             \
    EXPECT_EQ(settings.field, value);                                              \
    for (int64_t v : {int64_t{lowest}, int64_t{highest}, int64_t{value}}) {        \
      EXPECT_TRUE(settings.set(name, std::to_string(v)).ok()) << name << '=' << v; \
      EXPECT_EQ(settings.field, v);                                                \
    }                                                                              \
    EXPECT_FALSE(settings.set(name, std::to_string(int64_t{lowest} - 1)).ok());    \
    EXPECT_FALSE(settings.set(name, std::to_string(int64_t{highest} + 1)).ok());   \
  }
  USTACK_INTEGER_SETTINGS(USTACK_TEST_ROW)
#undef USTACK_TEST_ROW
}

}  // namespace
}  // namespace ustack
