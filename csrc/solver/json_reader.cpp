#include "solver/json_reader.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>
#include <vector>

#include "mfik/solver.hpp"

namespace mfik {
namespace {

constexpr std::size_t kMaxJsonDepth = 32;       // as in mfik/export/bundle.py
constexpr double kOrthonormalTolerance = 1e-9;  // of R^T R - I, element by element
constexpr std::size_t kQuoteLength = 60;        // characters of a text that messages show

/// Checks a text before it is parsed into memory: bounded depth, so that no function that walks the document exhausts
/// the stack, and keys that occur once, as parsers differ in which of two counts.
struct JsonRules : nlohmann::json_sax<Json> {
    std::string broken, got;                  // the first rule that does not hold
    std::vector<std::set<std::string>> keys;  // of the open objects and arrays

    bool open() {
        keys.emplace_back();
        if (keys.size() > kMaxJsonDepth) broken = "at most " + std::to_string(kMaxJsonDepth) + " levels", got = "more";
        return broken.empty();
    }
    bool close() {
        keys.pop_back();
        return true;
    }
    bool key(std::string& name) override {
        if (!keys.back().insert(name).second) broken = "every key once", got = JsonReader::quote(name) + " twice";
        return broken.empty();
    }
    bool start_object(std::size_t) override { return open(); }
    bool start_array(std::size_t) override { return open(); }
    bool end_object() override { return close(); }
    bool end_array() override { return close(); }
    bool null() override { return true; }
    bool boolean(bool) override { return true; }
    bool number_integer(std::int64_t) override { return true; }
    bool number_unsigned(std::uint64_t) override { return true; }
    bool number_float(double, const std::string&) override { return true; }
    bool string(std::string&) override { return true; }
    bool binary(Json::binary_t&) override { return true; }
    bool parse_error(std::size_t, const std::string&, const Json::exception&) override { return false; }
};

}  // namespace

void JsonReader::fail(const std::string& where, const std::string& expected, const std::string& got,
                      const std::string& remedy) const {
    throw Error(source_ + ": " + where + ": expected " + expected + ", got " + got + "; " + remedy);
}

Json JsonReader::parse(std::string_view text, const std::string& where) const {
    JsonRules rules;
    const bool holds = Json::sax_parse(text, &rules);
    if (!rules.broken.empty()) fail(where, rules.broken, rules.got);
    const bool has_nul = text.find('\0') != std::string_view::npos;  // where nlohmann::json stops reading
    Json document = holds && !has_nul ? Json::parse(text) : Json();
    if (!document.is_object()) fail(where, "a JSON object", quote(text));
    return document;
}

const Json& JsonReader::member(const Json& object, const char* key, const std::string& where) const {
    if (!object.is_object()) fail(where, "a JSON object", excerpt(object));
    const auto it = object.find(key);
    if (it == object.end()) fail(where + "." + key, "a value", "nothing");
    return *it;
}

std::string JsonReader::string(const Json& object, const char* key, const std::string& where) const {
    const Json& value = member(object, key, where);
    if (!value.is_string()) fail(where + "." + key, "a string", excerpt(value));
    return value.get<std::string>();
}

int JsonReader::integer(const Json& object, const char* key, const std::string& where, int low, int high) const {
    const Json& value = member(object, key, where);
    // A float or an unsigned number above 2^63 is no match for the range either.
    if (!value.is_number_integer() || value < low || value > high) {
        fail(where + "." + key, "an integer from " + std::to_string(low) + " to " + std::to_string(high),
             excerpt(value));
    }
    return value.get<int>();
}

double JsonReader::number(const Json& value, const std::string& where) const {
    if (!value.is_number() || !std::isfinite(value.get<double>())) fail(where, "a finite number", excerpt(value));
    return value.get<double>();
}

void JsonReader::transform(const Json& value, const std::string& where, double* out) const {
    if (!value.is_array() || value.size() != 12) fail(where, "12 numbers (3x4 row-major)", excerpt(value));
    for (std::size_t i = 0; i < 12; ++i) out[i] = number(value[i], where + "[" + std::to_string(i) + "]");
    double defect = 0.0;
    for (int i = 0; i < 3; ++i) {
        for (int j = 0; j < 3; ++j) {
            double dot = i == j ? -1.0 : 0.0;
            for (int k = 0; k < 3; ++k) dot += out[4 * k + i] * out[4 * k + j];
            defect = std::max(defect, std::abs(dot));
        }
    }
    const double determinant = out[0] * (out[5] * out[10] - out[6] * out[9]) -
                               out[1] * (out[4] * out[10] - out[6] * out[8]) +
                               out[2] * (out[4] * out[9] - out[5] * out[8]);
    if (!(defect <= kOrthonormalTolerance) || determinant < 0) {
        fail(where, "a rotation matrix in its first three columns (R^T R = I to 1e-9, det R = 1)", excerpt(value));
    }
}

std::string JsonReader::quote(std::string_view text) {
    std::string shown(text.substr(0, kQuoteLength));
    // A damaged file may hold anything: keep messages printable.
    std::replace_if(shown.begin(), shown.end(), [](char c) { return c < ' ' || c > '~'; }, '?');
    return "'" + shown + (text.size() <= kQuoteLength ? "'" : "...'");
}

std::string JsonReader::excerpt(const Json& value) {
    return quote(value.dump(-1, ' ', false, Json::error_handler_t::replace));
}

}  // namespace mfik
