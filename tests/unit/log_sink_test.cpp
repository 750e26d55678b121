#include "io/log_sink.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <regex>
#include <set>
#include <string>
#include <vector>

#include "io/random.h"

namespace ustack::io {
namespace {

std::vector<std::string> lines_of(const std::string& path) {
  std::ifstream file(path);
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(line);
  return lines;
}

class LogSinkTest : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/ustack-log-XXXXXX";
    close(mkstemp(name));
    path_ = name;
  }
  void TearDown() override { unlink(path_.c_str()); }
  std::string path_;
};

TEST_F(LogSinkTest, EachLineSaysWhenWhoAndHowBad) {
  FdLogSink sink;
  ASSERT_FALSE(FdLogSink::open(path_, &sink));
  sink.write(LogLevel::info, "connected");
  sink.write(LogLevel::error, "");
  auto lines = lines_of(path_);
  ASSERT_EQ(lines.size(), 2u);
  std::string pid = std::to_string(getpid());
  EXPECT_TRUE(std::regex_match(
      lines[0], std::regex("\\d\\d:\\d\\d:\\d\\d\\.\\d{6} ustack\\[" + pid + "\\] info: connected")))
      << lines[0];
  EXPECT_TRUE(lines[1].ends_with("error: ")) << lines[1];
}

TEST_F(LogSinkTest, AppendsAndSurvivesFork) {
  std::ofstream(path_) << "before\n";
  FdLogSink sink;
  ASSERT_FALSE(FdLogSink::open(path_, &sink));
  pid_t child = fork();
  if (child == 0) {
    sink.write(LogLevel::debug, "child");
    _exit(0);
  }
  waitpid(child, nullptr, 0);
  sink.write(LogLevel::debug, "parent");
  auto lines = lines_of(path_);
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_EQ(lines[0], "before");
  EXPECT_NE(lines[1].find("[" + std::to_string(child) + "] debug: child"), std::string::npos);
  EXPECT_TRUE(lines[2].ends_with("debug: parent"));
}

TEST(LogSinkErrors, SayWhichFile) {
  FdLogSink sink;
  auto problem = FdLogSink::open("/nonexistent/log", &sink);
  ASSERT_TRUE(problem);
  EXPECT_EQ(problem->code, ENOENT);
  EXPECT_NE(problem->message.find("/nonexistent/log: No such file"), std::string::npos);
}

TEST(GetrandomSource, NeverRepeatsItselfNorItsParent) {
  GetrandomSource random;
  std::set<uint64_t> seen;
  for (int i = 0; i < 1000; ++i) seen.insert(random.u64());
  EXPECT_EQ(seen.size(), 1000u);
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  pid_t child = fork();
  if (child == 0) {
    uint64_t value = random.u64();
    _exit(write(ends[1], &value, sizeof value) == sizeof value ? 0 : 1);
  }
  uint64_t childs = 0;
  ASSERT_EQ(read(ends[0], &childs, sizeof childs), static_cast<ssize_t>(sizeof childs));
  waitpid(child, nullptr, 0);
  close(ends[0]);
  close(ends[1]);
  EXPECT_NE(childs, random.u64());
}

}  // namespace
}  // namespace ustack::io
