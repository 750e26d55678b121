#include "io/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <set>
#include <string>
#include <vector>

#include "io/bring_up.h"

namespace ustack::io {
namespace {

using testing::HasSubstr;
using testing::Not;

/// Parses variables given as "NAME=value".
std::optional<std::string> parse(const std::vector<std::string>& variables, Config* out) {
  std::vector<const char*> environment;
  for (const std::string& variable : variables) environment.push_back(variable.c_str());
  environment.push_back(nullptr);
  return Config::parse(environment.data(), out);
}

Config parsed(const std::vector<std::string>& variables) {
  Config config;
  auto problem = parse(variables, &config);
  EXPECT_EQ(problem.value_or(""), "");
  return config;
}

std::string problem_of(const std::vector<std::string>& variables) {
  Config config;
  return parse(variables, &config).value_or("(no problem)");
}

class TemporaryFile {
 public:
  explicit TemporaryFile(const std::string& text) {
    char path[] = "/tmp/ustack-config-XXXXXX";
    int fd = mkstemp(path);
    path_ = path;
    EXPECT_EQ(write(fd, text.data(), text.size()), static_cast<ssize_t>(text.size()));
    close(fd);
  }
  ~TemporaryFile() { unlink(path_.c_str()); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

TEST(Config, WithoutVariablesEverythingHasItsDefault) {
  Config config = parsed({"PATH=/bin", "HOME=/", "USTACKISH=1"});
  EXPECT_EQ(config.link.scheme, LinkSpec::Scheme::automatic);
  EXPECT_TRUE(config.addresses.empty());
  EXPECT_TRUE(config.gateways.empty());
  EXPECT_FALSE(config.mac);
  EXPECT_EQ(config.mtu, 0);
  EXPECT_EQ(config.io, EngineKind::automatic);
  EXPECT_EQ(config.spin, Duration(0));
  EXPECT_FALSE(config.check_pointers);
  EXPECT_FALSE(config.parts_by_credentials);
  EXPECT_EQ(config.syscalls, OwnSyscalls::automatic);
  EXPECT_FALSE(config.udp_in_stack);
  EXPECT_EQ(config.log_level, LogLevel::off);
  EXPECT_EQ(config.settings.tcp_sack, 1);
}

TEST(Config, ReadsEveryVariable) {
  Config config = parsed({"USTACK_LINK=tap:tap7", "USTACK_ADDR=192.0.2.2/24, 198.51.100.9/25",
                          "USTACK_GATEWAY=192.0.2.1", "USTACK_MAC=02:aB:00:00:00:01", "USTACK_MTU=9000",
                          "USTACK_LOOPBACK=stack", "USTACK_KERNEL=203.0.113.0/24",
                          "USTACK_SYSCTL=net.ipv4.tcp_sack=0; net.ipv4.tcp_rmem = 4096 65536 131072;",
                          "USTACK_IO=plain", "USTACK_SPIN=50", "USTACK_QUEUES=4", "USTACK_EFAULT=check",
                          "USTACK_TRUST=credentials", "USTACK_SYSCALLS=catch", "USTACK_LOG=debug:/tmp/x:y",
                          "USTACK_CAPTURE=/tmp/a.pcapng", "USTACK_COUNTERS=/tmp/c"});
  EXPECT_EQ(config.link.scheme, LinkSpec::Scheme::tap);
  EXPECT_EQ(config.link.name, "tap7");
  ASSERT_EQ(config.addresses.size(), 2u);
  EXPECT_EQ(config.addresses[0], (Prefix{IpAddress::v4(192, 0, 2, 2), 24}));
  EXPECT_EQ(config.addresses[1], (Prefix{IpAddress::v4(198, 51, 100, 9), 25}));
  ASSERT_EQ(config.gateways.size(), 1u);
  EXPECT_EQ(config.gateways[0], IpAddress::v4(192, 0, 2, 1));
  ASSERT_TRUE(config.mac);
  EXPECT_EQ(to_string(*config.mac), "02:ab:00:00:00:01");
  EXPECT_EQ(config.mtu, 9000);
  EXPECT_EQ(config.settings.tcp_sack, 0);
  EXPECT_EQ(config.settings.tcp_rmem[2], 131072);
  EXPECT_EQ(config.io, EngineKind::plain);
  EXPECT_EQ(config.spin, 50us);
  EXPECT_EQ(config.link.queues, 4u);
  EXPECT_TRUE(config.loopback_in_stack);
  EXPECT_TRUE(config.check_pointers);
  EXPECT_TRUE(config.parts_by_credentials);
  EXPECT_EQ(config.syscalls, OwnSyscalls::catch_them);
  EXPECT_EQ(config.log_level, LogLevel::debug);
  EXPECT_EQ(config.log_file, "/tmp/x:y");
  EXPECT_EQ(config.capture_file, "/tmp/a.pcapng");
  EXPECT_EQ(config.counters_file, "/tmp/c");
}

TEST(Config, Links) {
  EXPECT_EQ(parsed({"USTACK_LINK=tun:t0"}).link.scheme, LinkSpec::Scheme::tun);
  Config frames = parsed({"USTACK_LINK=fd:3", "USTACK_ADDR=192.0.2.2/24"});
  EXPECT_EQ(frames.link.scheme, LinkSpec::Scheme::fd);
  EXPECT_EQ(frames.link.fd, 3);
  EXPECT_FALSE(frames.link.ip);
  EXPECT_TRUE(parsed({"USTACK_LINK=fd:12:ip", "USTACK_ADDR=192.0.2.2/24"}).link.ip);
  Config several = parsed({"USTACK_LINK=fd:12,7,9:ip", "USTACK_ADDR=192.0.2.2/24"});
  EXPECT_EQ(several.link.fd, 12);
  EXPECT_EQ(several.link.more_fds, (std::vector<int>{7, 9}));
  EXPECT_TRUE(several.link.ip);
  const Config shards = parsed({"USTACK_SHARDS=3"});
  EXPECT_EQ(shards.shards, 3u);
  EXPECT_EQ(shards.link.queues, 3u) << "each has a queue";
  EXPECT_TRUE(shards.link.steered);
  EXPECT_EQ(parsed({"USTACK_QUEUES=2", "USTACK_SHARDS=2"}).link.queues, 2u);
  EXPECT_FALSE(parsed({"USTACK_QUEUES=2"}).link.steered);
  EXPECT_EQ(parsed({"USTACK_QUEUES=2", "USTACK_LINK=packet:eth0", "USTACK_ADDR=192.0.2.2/24"}).link.queues,
            2u);
}

TEST(Config, AnEmptyVariableIsNotSet) {
  Config config = parsed({"USTACK_LINK=", "USTACK_MTU=  ", "USTACK_ADDR="});
  EXPECT_EQ(config.link.scheme, LinkSpec::Scheme::automatic);
  EXPECT_EQ(config.mtu, 0);
}

struct Bad {
  std::vector<std::string> variables;
  /// What the text must hold besides each variable's name.
  std::vector<std::string> says;
};

class ConfigMistakes : public testing::TestWithParam<Bad> {};

TEST_P(ConfigMistakes, AreNamed) {
  std::string text = problem_of(GetParam().variables);
  EXPECT_THAT(text, HasSubstr(GetParam().variables.back().substr(0, GetParam().variables.back().find('='))));
  for (const std::string& said : GetParam().says) EXPECT_THAT(text, HasSubstr(said));
}

INSTANTIATE_TEST_SUITE_P(
    All, ConfigMistakes,
    testing::Values(
        Bad{{"USTACK_LNIK=tap:x"}, {"no such variable", "did you mean USTACK_LINK?"}},
        Bad{{"USTACK_SOMETHING_ELSE=1"}, {"no such variable", "known are", "USTACK_CAPTURE"}},
        Bad{{"USTACK_"}, {"no such variable"}}, Bad{{"USTACK_LINK=tap0"}, {"\"tap0\"", "tap:NAME"}},
        Bad{{"USTACK_LINK=tap:"}, {"device's name"}}, Bad{{"USTACK_LINK=tap:a/b"}, {"\"a/b\""}},
        Bad{{"USTACK_LINK=tap:0123456789abcdef"}, {"15"}}, Bad{{"USTACK_LINK=tap:x%d"}, {"'%'"}},
        Bad{{"USTACK_LINK=packet:eth0"}, {"needs USTACK_ADDR"}}, Bad{{"USTACK_LINK=fd:x"}, {"\"x\""}},
        Bad{{"USTACK_LINK=fd:-1"}, {"\"-1\""}},
        Bad{{"USTACK_ADDR=192.0.2.2/24", "USTACK_LINK=fd:3:eth"}, {"\"eth\"", "ip"}},
        Bad{{"USTACK_LINK=fd:3"}, {"needs USTACK_ADDR"}}, Bad{{"USTACK_ADDR=192.0.2.2"}, {"prefix length"}},
        Bad{{"USTACK_ADDR=192.0.2.2/33"}, {"\"192.0.2.2/33\""}},
        Bad{{"USTACK_ADDR=192.0.2.256/24"}, {"not an address"}},
        Bad{{"USTACK_ADDR=192.0.2.2/24,,198.51.100.1/24"}, {"empty"}},
        Bad{{"USTACK_ADDR=192.0.2.0/24"}, {"subnet's own"}},
        Bad{{"USTACK_ADDR=192.0.2.255/24"}, {"broadcast"}}, Bad{{"USTACK_ADDR=127.0.0.2/8"}, {"loopback"}},
        Bad{{"USTACK_ADDR=224.0.0.1/24"}, {"can't be a host's"}}, Bad{{"USTACK_ADDR=192.0.2.2/0"}, {"0"}},
        Bad{{"USTACK_ADDR=192.0.2.2/24,192.0.2.2/25"}, {"twice"}},
        Bad{{"USTACK_ADDR=2001:db8::/64"}, {"2001:db8::/64", "the subnet's routers"}},
        Bad{{"USTACK_ADDR=ff02::1/64"}, {"can't be a host's address"}},
        Bad{{"USTACK_ADDR=::1/128"}, {"belong to the machine"}},
        Bad{{"USTACK_ADDR=::ffff:192.0.2.2/120"}, {"stands for an IPv4 address"}},
        Bad{{"USTACK_ADDR=2001:db8::2/64", "USTACK_MTU=1000"}, {"USTACK_MTU=1000", "1280"}},
        Bad{{"USTACK_ADDR=192.0.2.2/24", "USTACK_GATEWAY=nowhere"}, {"\"nowhere\""}},
        Bad{{"USTACK_ADDR=192.0.2.2/24", "USTACK_GATEWAY=198.51.100.1"}, {"no subnet"}},
        Bad{{"USTACK_ADDR=192.0.2.2/24", "USTACK_GATEWAY=192.0.2.2"}, {"own address"}},
        Bad{{"USTACK_GATEWAY=192.0.2.1"}, {"needs USTACK_ADDR"}},
        Bad{{"USTACK_ADDR=192.0.2.2/24", "USTACK_GATEWAY=2001:db8::1"}, {"lies in no subnet"}},
        Bad{{"USTACK_ADDR=192.0.2.2/24", "USTACK_GATEWAY=fe80::1"}, {"lies in no subnet"}},
        Bad{{"USTACK_ADDR=2001:db8::2/64", "USTACK_GATEWAY=2001:db8::2"}, {"the host's own address"}},
        Bad{{"USTACK_MAC=02:00:00:00:00"}, {"not a MAC"}},
        Bad{{"USTACK_MAC=02-00-00-00-00-01"}, {"not a MAC"}},
        Bad{{"USTACK_MAC=01:00:5e:00:00:01"}, {"single interface"}},
        Bad{{"USTACK_MAC=00:00:00:00:00:00"}, {"single"}},
        Bad{{"USTACK_LINK=tun:t0", "USTACK_MAC=02:00:00:00:00:01"}, {"no MAC address"}},
        Bad{{"USTACK_MTU=big"}, {"68 to 65521"}}, Bad{{"USTACK_MTU=67"}, {"68"}},
        Bad{{"USTACK_MTU=70000"}, {"65521"}}, Bad{{"USTACK_MTU=1500x"}, {"68"}},
        Bad{{"USTACK_LOOPBACK=both"}, {"kernel", "stack"}}, Bad{{"USTACK_KERNEL=:0"}, {"\":0\""}},
        Bad{{"USTACK_KERNEL=:80-79"}, {"\":80-79\""}},
        Bad{{"USTACK_KERNEL=192.0.2.0/24:"}, {"192.0.2.0/24:"}},
        Bad{{"USTACK_KERNEL=[192.0.2.1]:80"}, {"PREFIX"}}, Bad{{"USTACK_KERNEL=[2001:db8::1"}, {"PREFIX"}},
        Bad{{"USTACK_KERNEL=example.org"}, {"example.org"}},
        Bad{{"USTACK_SYSCTL=net.ipv4.tcp_magic=1"}, {"no setting"}},
        Bad{{"USTACK_SYSCTL=net.ipv4.tcp_sack"}, {"NAME=VALUE"}},
        Bad{{"USTACK_SYSCTL=net.ipv4.tcp_sack=yes"}, {"yes"}},
        Bad{{"USTACK_SYSCTL=net.ipv4.tcp_rmem=1 2"}, {"tcp_rmem"}},
        Bad{{"USTACK_IO=epoll"}, {"uring", "plain"}}, Bad{{"USTACK_SPIN=-1"}, {"microseconds"}},
        Bad{{"USTACK_SPIN=2000000"}, {"1000000"}}, Bad{{"USTACK_QUEUES=0"}, {"1", "8"}},
        Bad{{"USTACK_QUEUES=9"}, {"1 to 8"}}, Bad{{"USTACK_SHARDS=9"}, {"1 to 8"}},
        Bad{{"USTACK_SHARDS=2", "USTACK_QUEUES=3"}, {"USTACK_QUEUES=3", "USTACK_SHARDS=2", "one queue"}},
        Bad{{"USTACK_LINK=fd:3", "USTACK_ADDR=192.0.2.2/24", "USTACK_SHARDS=2"}, {"as many queues"}},
        Bad{{"USTACK_LINK=fd:3,x"}, {"\"x\"", "descriptor"}},
        Bad{{"USTACK_LINK=fd:3,3,3,3,3,3,3,3,3"}, {"more than 8"}},
        Bad{{"USTACK_LINK=fd:3,4", "USTACK_ADDR=192.0.2.2/24", "USTACK_QUEUES=4"}, {"as many queues"}},
        Bad{{"USTACK_EFAULT=1"}, {"check"}}, Bad{{"USTACK_TRUST=me"}, {"relatives", "credentials"}},
        Bad{{"USTACK_SYSCALLS=yes"}, {"auto", "catch", "leave"}},
        Bad{{"USTACK_UDP=yes"}, {"stack", "kernel"}}, Bad{{"USTACK_LOG=loud"}, {"\"loud\"", "trace"}},
        Bad{{"USTACK_LOG=info:"}, {"file"}},
        Bad{{"USTACK_CONFIG=/nonexistent/ustack.conf"}, {"No such file"}}));

TEST(Config, EveryMistakeIsToldAtOnce) {
  std::string text = problem_of({"USTACK_MTU=x", "USTACK_IO=y"});
  EXPECT_THAT(text, HasSubstr("USTACK_MTU=x: "));
  EXPECT_THAT(text, HasSubstr("\nUSTACK_IO=y: "));
}

TEST(Config, IdentityIsOfTheHostAndNotOfHowAProcessUsesIt) {
  const std::vector<std::string> host = {"USTACK_LINK=tap:tap0", "USTACK_ADDR=192.0.2.2/24"};
  auto with = [&](const std::string& more) {
    std::vector<std::string> variables = host;
    variables.push_back(more);
    return parsed(variables).identity();
  };
  const uint64_t identity = parsed(host).identity();
  for (const char* same : {"USTACK_IO=plain", "USTACK_SPIN=20", "USTACK_LOG=debug", "USTACK_EFAULT=check",
                           "USTACK_TRUST=credentials", "USTACK_SYSCALLS=leave", "USTACK_CAPTURE=/tmp/x",
                           "USTACK_COUNTERS=/tmp/y", "USTACK_SYSCTL=net.ipv4.tcp_sack=1"})
    EXPECT_EQ(with(same), identity) << same;
  std::set<uint64_t> different = {identity};
  for (const char* other :
       {"USTACK_LINK=tap:tap1", "USTACK_LINK=tun:tap0", "USTACK_ADDR=192.0.2.2/25",
        "USTACK_ADDR=192.0.2.3/24", "USTACK_GATEWAY=192.0.2.1", "USTACK_MAC=02:00:00:00:00:01",
        "USTACK_MTU=1400", "USTACK_QUEUES=2", "USTACK_SHARDS=2", "USTACK_LOOPBACK=stack",
        "USTACK_KERNEL=203.0.113.0/24", "USTACK_KERNEL=203.0.113.0/24:80",
        "USTACK_SYSCTL=net.ipv4.tcp_sack=0", "USTACK_SYSCTL=net.ipv4.tcp_dsack=0",
        "USTACK_SYSCTL=net.ipv4.tcp_rmem=4096 131072 6291456",
        "USTACK_SYSCTL=net.ipv4.ip_local_port_range=40000 50000",
        "USTACK_SYSCTL=net.ipv4.tcp_congestion_control=reno"})
    EXPECT_TRUE(different.insert(with(other)).second) << other;
}

TEST(Config, KernelRules) {
  Config config =
      parsed({"USTACK_KERNEL=203.0.113.0/24, :53, 192.0.2.1:8000-8080, [2001:db8::]/32, "
              "[2001:db8:1::1]:443, 2001:db8:2::/48"});
  ASSERT_EQ(config.kernel.size(), 6u);
  auto stays = [&](const char* address, uint16_t port) {
    return config.stays_with_kernel({*parse_address(address), port});
  };
  EXPECT_TRUE(stays("203.0.113.7", 80));
  EXPECT_FALSE(stays("203.0.114.7", 80));
  EXPECT_TRUE(stays("198.51.100.1", 53));
  EXPECT_TRUE(stays("2001:db9::1", 53));
  EXPECT_FALSE(stays("198.51.100.1", 54));
  EXPECT_TRUE(stays("192.0.2.1", 8000));
  EXPECT_TRUE(stays("192.0.2.1", 8080));
  EXPECT_FALSE(stays("192.0.2.1", 8081));
  EXPECT_FALSE(stays("192.0.2.2", 8000));
  EXPECT_TRUE(stays("2001:db8:ffff::1", 1));
  EXPECT_FALSE(stays("2001:db9::1", 443));
  EXPECT_FALSE(parsed({}).stays_with_kernel({IpAddress::v4(192, 0, 2, 1), 80}));
}

TEST(Config, AFileHasSettingsAndVariablesAndTheEnvironmentWins) {
  TemporaryFile file(
      "# comment\n; comment\n\n net.ipv4.tcp_sack = "
      "0\nnet/ipv4/tcp_timestamps=0\n-net.ipv4.no_such_thing=1\r\n"
      "USTACK_MTU = 1400\nUSTACK_LINK=tap:fromfile\nUSTACK_ADDR=192.0.2.9/24\n");
  Config config = parsed({"USTACK_CONFIG=" + file.path(), "USTACK_LINK=tap:fromenv",
                          "USTACK_ADDR=192.0.2.10/24", "USTACK_SYSCTL=net.ipv4.tcp_timestamps=2"});
  EXPECT_EQ(config.settings.tcp_sack, 0);
  EXPECT_EQ(config.settings.tcp_timestamps, 2);
  EXPECT_EQ(config.mtu, 1400);
  EXPECT_EQ(config.link.name, "fromenv");
  ASSERT_EQ(config.addresses.size(), 1u);
  EXPECT_EQ(config.addresses[0].address, IpAddress::v4(192, 0, 2, 10));
}

TEST(Config, MistakesInAFileAreToldWithTheirLine) {
  TemporaryFile file(
      "net.ipv4.tcp_sack=0\nnonsense\nnet.ipv4.no_such_thing = 1\nUSTACK_MTU=1\nUSTACK_CONFIG=/x\n");
  std::string text = problem_of({"USTACK_CONFIG=" + file.path()});
  EXPECT_THAT(text, HasSubstr(file.path() + ":2: "));
  EXPECT_THAT(text, HasSubstr(file.path() + ":3: there is no setting net.ipv4.no_such_thing"));
  EXPECT_THAT(text, HasSubstr(file.path() + ":4: USTACK_MTU=1: "));
  EXPECT_THAT(text, HasSubstr(file.path() + ":5: "));
  EXPECT_THAT(text, Not(HasSubstr(":1: ")));
}

TEST(Config, ADirectoryIsNoFile) {
  EXPECT_THAT(problem_of({"USTACK_CONFIG=/tmp"}), HasSubstr("Is a directory"));
}

TEST(Config, Udp) {
  EXPECT_TRUE(parsed({"USTACK_LINK=tap:t0", "USTACK_UDP=stack"}).udp_in_stack);
  EXPECT_FALSE(parsed({"USTACK_LINK=tap:t0", "USTACK_UDP=kernel"}).udp_in_stack);
}

TEST(Config, TheTableIsComplete) {
  std::set<std::string_view> names;
  for (const ConfigVariable& variable : config_variables()) {
    EXPECT_TRUE(variable.name.starts_with("USTACK_")) << variable.name;
    EXPECT_FALSE(variable.form.empty()) << variable.name;
    EXPECT_FALSE(variable.help.empty()) << variable.name;
    EXPECT_TRUE(names.insert(variable.name).second) << variable.name;
  }
  EXPECT_EQ(names.size(), 20u);
}

TEST(AddressText, RoundTrips) {
  for (const char* text : {"192.0.2.1", "2001:db8::1", "::", "0.0.0.0"}) {
    auto address = parse_address(text);
    ASSERT_TRUE(address) << text;
    EXPECT_EQ(to_string(*address), text);
  }
  EXPECT_EQ(to_string(*parse_prefix("192.0.2.0/24")), "192.0.2.0/24");
  EXPECT_EQ(to_string(*parse_prefix("192.0.2.1")), "192.0.2.1/32");
  for (const char* text :
       {"", "192.0.2", "192.0.2.1/", "192.0.2.1/x", "192.0.2.1/-1", "192.0.2.1/33", "2001:db8::/129",
        "192.0.2.1 ", "2001:db8:0000:0000:0000:0000:0000:0000:0000:0000:0000:0001"})
    EXPECT_FALSE(parse_prefix(text)) << text;
  for (const char* text : {"", "02:00:00:00:00:0g", "02:00:00:00:00:001", "0200:00:00:00:00:1"})
    EXPECT_FALSE(parse_mac(text)) << text;
}

TEST(Pool, SubnetsFollowTheDevicesNumber) {
  EXPECT_EQ(to_string(pool_subnet(0)), "198.18.0.1/30");
  EXPECT_EQ(to_string(pool_subnet(1)), "198.18.0.5/30");
  EXPECT_EQ(to_string(pool_subnet(64)), "198.18.1.1/30");
  EXPECT_EQ(to_string(pool_subnet(32767)), "198.19.255.253/30");
  EXPECT_EQ(pool_subnet(32768), pool_subnet(0));
}

}  // namespace
}  // namespace ustack::io
